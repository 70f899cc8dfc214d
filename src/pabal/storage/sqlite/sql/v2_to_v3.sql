-- From schema version 2 to 3. Never changed afterwards.

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
