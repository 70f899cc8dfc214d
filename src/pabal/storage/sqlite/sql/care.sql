-- Deleting and copying: trim, projections, forgotten subscriptions.

-- name: trim_bound
SELECT min(bound) FROM (
    SELECT min(watermark) AS bound FROM subscriptions
    UNION ALL SELECT min(watermark) FROM replays
    UNION ALL SELECT min(position) FROM moves
    UNION ALL SELECT min(position) - 1 FROM queued
    UNION ALL SELECT min(position) - 1 FROM retries WHERE from_dead_letter = 0)

-- name: slower_than
SELECT name FROM subscriptions WHERE watermark < ?1
UNION SELECT subscription FROM replays WHERE watermark < ?1
UNION SELECT subscription FROM moves WHERE position < ?1
UNION SELECT subscription FROM queued WHERE position <= ?1
UNION SELECT subscription FROM retries WHERE from_dead_letter = 0 AND position <= ?1
ORDER BY 1

-- name: has_projections
SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'pabal_projections'

-- name: projections
SELECT name, is_live, position FROM pabal_projections
WHERE position >= (SELECT min(position) FROM events) - 1 ORDER BY name, generation

-- name: generations
SELECT name, generation, version, position, is_live, tables FROM pabal_projections ORDER BY name, generation

-- name: insert_generation
INSERT INTO pabal_projections (name, generation, version, position, is_live, tables) VALUES (?, ?, ?, ?, ?, ?)

-- name: made_for_table
SELECT type, sql FROM sqlite_schema WHERE tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL
ORDER BY type <> 'table', rowid

-- name: stored_columns
SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0 ORDER BY cid

-- name: autoincrement
SELECT seq FROM sqlite_sequence WHERE name = ?

-- name: forget_autoincrement
DELETE FROM sqlite_sequence WHERE name = ?

-- name: set_autoincrement
INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)

-- name: slice_end
SELECT max(position) FROM (SELECT position FROM events WHERE position <= ? ORDER BY position LIMIT ?)

-- name: trim_stream
DELETE FROM streams WHERE aggregate_id = ? AND aggregate_type = ? AND version <= ?
AND version < (SELECT max(s.version) FROM streams s
               WHERE s.aggregate_id = streams.aggregate_id AND s.aggregate_type = streams.aggregate_type)

-- name: trimmed_streams
SELECT aggregate_id, aggregate_type, version, position FROM streams s
WHERE position < (SELECT min(position) FROM events)
AND version = (SELECT max(version) FROM streams WHERE aggregate_id = s.aggregate_id AND aggregate_type = s.aggregate_type)

-- name: insert_stream
INSERT INTO streams (aggregate_id, aggregate_type, version, position) VALUES (?, ?, ?, ?)

-- name: trim_types
DELETE FROM events_by_type WHERE (event_type, position) IN (
    SELECT event_type, position FROM events WHERE position <= ?)

-- name: trim_correlations
DELETE FROM events_by_correlation WHERE (correlation_id, position) IN (
    SELECT correlation_id, position FROM events WHERE position <= ? AND correlation_id IS NOT NULL)

-- name: trim_marks
DELETE FROM processed WHERE position <= ?

-- name: trim_recoveries
DELETE FROM recoveries WHERE position <= ?

-- name: trim_events
DELETE FROM events WHERE position <= ? RETURNING aggregate_id, coalesce(aggregate_type, ''), stream_version

-- name: forget_retries
DELETE FROM retries WHERE subscription = ?

-- name: forget_recoveries
DELETE FROM recoveries WHERE subscription = ?

-- name: forget_queue
DELETE FROM queued WHERE subscription = ?

-- name: forget_subscription
DELETE FROM subscriptions WHERE name = ?
