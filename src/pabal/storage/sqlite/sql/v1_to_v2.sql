-- From schema version 1 to 2. Never changed afterwards.

-- Deliveries that succeeded after failed attempts: how. The newest 10,000, for operators alone.
CREATE TABLE recoveries (
    id           INTEGER PRIMARY KEY,
    subscription TEXT    NOT NULL,
    position     INTEGER NOT NULL,
    attempts     INTEGER NOT NULL,     -- the last one included
    failures     BLOB    NOT NULL,     -- JSON
    finished_at  REAL    NOT NULL      -- seconds since 1970
) STRICT;

CREATE INDEX recoveries_by_position ON recoveries (position, subscription);
