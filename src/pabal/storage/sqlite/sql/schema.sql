-- Schema version 3. Applied statement by statement to an empty database.

-- The log. position = rowid, assigned by the writer: consecutive, in commit order.
CREATE TABLE events (
    position       INTEGER PRIMARY KEY,
    event_id       BLOB    NOT NULL,   -- UUID, 16 bytes, ordered by time
    event_type     TEXT    NOT NULL,
    schema_version INTEGER NOT NULL,
    aggregate_type TEXT,
    aggregate_id   TEXT,
    occurred_at    INTEGER NOT NULL,   -- microseconds since 1970, like every time here
    correlation_id TEXT,
    causation_id   TEXT,
    metadata       BLOB,               -- JSON
    payload        BLOB    NOT NULL,   -- JSON
    checksum       INTEGER NOT NULL,   -- CRC-32 of the above, bound to the position
    stream_version INTEGER,            -- from 1 within the aggregate; NULL without one
    recorded_at    INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX events_by_id ON events (event_id);

-- (stream, version) → position. Built behind the commits, sorted, in slices: see meta.indexed_upto.
CREATE TABLE streams (
    aggregate_id   TEXT    NOT NULL,
    aggregate_type TEXT    NOT NULL,   -- '' for an event class without aggregate_type
    version        INTEGER NOT NULL,
    position       INTEGER NOT NULL,
    PRIMARY KEY (aggregate_id, aggregate_type, version)
) STRICT, WITHOUT ROWID;

-- Where the events of a type, and of a chain of causes, lie. Built behind the commits, like streams.
CREATE TABLE events_by_type (
    event_type TEXT    NOT NULL,
    position   INTEGER NOT NULL,
    PRIMARY KEY (event_type, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE events_by_correlation (
    correlation_id TEXT    NOT NULL,
    position       INTEGER NOT NULL,
    PRIMARY KEY (correlation_id, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value ANY
) STRICT, WITHOUT ROWID;

-- One row for every durable name. All positions up to frontier are finished, except those in unfinished.
CREATE TABLE subscriptions (
    number      INTEGER PRIMARY KEY,
    name        TEXT    NOT NULL UNIQUE,
    watermark   INTEGER NOT NULL,
    frontier    INTEGER NOT NULL,
    unfinished  BLOB,                  -- MessagePack array of differences, first one from the watermark
    owner       TEXT,                  -- who handles it now
    lease_until INTEGER NOT NULL DEFAULT 0,
    epoch       INTEGER NOT NULL DEFAULT 0,
    paused      INTEGER NOT NULL DEFAULT 0,
    reopenings  INTEGER NOT NULL DEFAULT 0, -- how often its holder was asked to take it up anew
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

-- Why a subscription has halted, as long as its epoch lasts; without the row it is to go on.
CREATE TABLE halts (
    subscription TEXT    PRIMARY KEY,
    epoch        INTEGER NOT NULL,
    reason       TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Where a subscription is to stand, asked while somebody held it: that holder obeys, or who takes it next.
CREATE TABLE moves (
    subscription TEXT PRIMARY KEY,
    position     INTEGER               -- NULL: the head of the log at that moment
) STRICT, WITHOUT ROWID;

-- Ranges of the log that are delivered once more, to one subscription alone; a row goes when its range is done.
CREATE TABLE replays (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    subscription   TEXT    NOT NULL,
    first_position INTEGER NOT NULL,
    last_position  INTEGER NOT NULL,
    watermark      INTEGER NOT NULL    -- everything of the range up to here is finished
) STRICT;

-- Deliveries that were attempted and are not finished.
CREATE TABLE retries (
    subscription     TEXT    NOT NULL,
    position         INTEGER NOT NULL,
    attempts         INTEGER NOT NULL,
    due_at           REAL    NOT NULL, -- seconds since 1970
    failures         BLOB    NOT NULL, -- JSON
    from_dead_letter INTEGER NOT NULL,
    PRIMARY KEY (subscription, position)
) STRICT, WITHOUT ROWID;

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

-- Deliveries that were given up, with a copy of the event that retention leaves alone.
CREATE TABLE dead_letters (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    subscription   TEXT    NOT NULL,
    position       INTEGER NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('parked', 'retrying')),
    reason         TEXT    NOT NULL,
    failures       BLOB    NOT NULL,   -- JSON
    error_type     TEXT,
    parked_at      REAL    NOT NULL,
    ordering_key   TEXT,               -- set where later events of the key wait behind this one
    event_id       BLOB    NOT NULL,
    event_type     TEXT    NOT NULL,
    schema_version INTEGER NOT NULL,
    aggregate_type TEXT,
    aggregate_id   TEXT,
    occurred_at    INTEGER NOT NULL,
    correlation_id TEXT,
    causation_id   TEXT,
    metadata       BLOB,
    payload        BLOB    NOT NULL,
    checksum       INTEGER NOT NULL,
    stream_version INTEGER,
    recorded_at    INTEGER NOT NULL,
    UNIQUE (subscription, position)
) STRICT;

CREATE INDEX dead_letters_by_error ON dead_letters (subscription, error_type, parked_at);

-- Positions that wait behind a parked one of their key.
CREATE TABLE queued (
    subscription TEXT    NOT NULL,
    ordering_key TEXT    NOT NULL,
    position     INTEGER NOT NULL,
    PRIMARY KEY (subscription, ordering_key, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX queued_by_position ON queued (subscription, position);

-- Events that enter the log later.
CREATE TABLE scheduled (
    event_id       BLOB    PRIMARY KEY,
    due_at         REAL    NOT NULL,
    event_type     TEXT    NOT NULL,
    schema_version INTEGER NOT NULL,
    aggregate_type TEXT,
    aggregate_id   TEXT,
    occurred_at    INTEGER NOT NULL,
    correlation_id TEXT,
    causation_id   TEXT,
    metadata       BLOB,
    payload        BLOB    NOT NULL,
    checksum       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX scheduled_by_time ON scheduled (due_at);

-- Marks of applications that dispatch by themselves.
CREATE TABLE processed (
    position     INTEGER PRIMARY KEY,
    result       TEXT,
    processed_at INTEGER NOT NULL
) STRICT;

-- What operators did: written before the action, completed after it.
CREATE TABLE audit (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    actor     TEXT    NOT NULL,
    action    TEXT    NOT NULL,
    subject   TEXT    NOT NULL,
    details   BLOB    NOT NULL,        -- JSON
    result    TEXT    NOT NULL DEFAULT '',
    succeeded INTEGER                  -- NULL while under way
) STRICT;

-- How the buses on this file were, every ten seconds for a day and every five minutes for a week.
CREATE TABLE samples (
    at            INTEGER NOT NULL,
    source        TEXT    NOT NULL,    -- which bus
    seconds       REAL    NOT NULL,    -- how long it covers
    handled       INTEGER NOT NULL,
    failed        INTEGER NOT NULL,    -- attempts
    lag           INTEGER NOT NULL,
    p50           REAL,                -- seconds for one attempt
    p99           REAL,
    subscriptions BLOB    NOT NULL,    -- JSON
    retrying      INTEGER NOT NULL,
    parked        INTEGER NOT NULL,
    PRIMARY KEY (at, source)
) STRICT, WITHOUT ROWID;

-- controls counts what was asked of subscriptions, so that others who have the file open notice it.
INSERT INTO meta (key, value) VALUES ('indexed_upto', 0), ('controls', 0);

-- States of aggregates, so that loading need not replay their whole history. A cache: safe to empty.
CREATE TABLE snapshots (
    aggregate_id   TEXT    NOT NULL,
    aggregate_type TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    data           BLOB    NOT NULL,
    PRIMARY KEY (aggregate_id, aggregate_type)
) STRICT;
