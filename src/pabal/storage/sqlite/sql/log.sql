-- Events: appending, reading by position, id and stream, and building the indexes.

-- name: head
SELECT coalesce(max(position), 0) FROM events

-- name: first
SELECT min(position) FROM events

-- name: insert_events
INSERT INTO events (position, event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
                    correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at)
VALUES

-- name: stored_event
SELECT position, event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
       correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at
FROM events WHERE event_id = ?

-- name: page
SELECT position, event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
       correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at
FROM events WHERE position > ? ORDER BY position LIMIT ?

-- name: page_of_types
SELECT position, event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
       correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at
FROM events WHERE position > ? AND event_type IN (SELECT value FROM json_each(?)) ORDER BY position LIMIT ?

-- name: at_positions
SELECT position, event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
       correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at
FROM events WHERE position IN (SELECT value FROM json_each(?)) ORDER BY position

-- name: stream_positions
SELECT position FROM streams WHERE aggregate_id = ? AND aggregate_type = ? AND version > ? ORDER BY version

-- name: stream_positions_any_type
SELECT position FROM streams WHERE aggregate_id = ? ORDER BY aggregate_type, version

-- name: stream_tail
SELECT position, coalesce(aggregate_type, '') FROM events WHERE position > ? AND aggregate_id = ? ORDER BY position

-- name: stream_version
SELECT max(version) FROM streams WHERE aggregate_id = ? AND aggregate_type = ?

-- name: stream_types
WITH RECURSIVE kinds(name) AS (
    SELECT min(aggregate_type) FROM streams WHERE aggregate_id = ?1
    UNION ALL SELECT (SELECT min(aggregate_type) FROM streams WHERE aggregate_id = ?1 AND aggregate_type > name)
    FROM kinds WHERE name IS NOT NULL)
SELECT name FROM kinds WHERE name IS NOT NULL
UNION SELECT coalesce(aggregate_type, '') FROM events
WHERE position > (SELECT value FROM meta WHERE key = 'indexed_upto') AND aggregate_id = ?1
ORDER BY 1

-- name: stream_ends
SELECT (SELECT min(version) FROM streams WHERE aggregate_id = ?1 AND aggregate_type = ?2),
       (SELECT max(version) FROM streams WHERE aggregate_id = ?1 AND aggregate_type = ?2)

-- name: stream_version_from
SELECT version, position FROM streams WHERE aggregate_id = ? AND aggregate_type = ? AND version >= ?
ORDER BY version LIMIT 1

-- name: indexed_upto
SELECT value FROM meta WHERE key = 'indexed_upto'

-- name: set_indexed_upto
UPDATE meta SET value = ? WHERE key = 'indexed_upto'

-- name: note_durability
INSERT INTO meta (key, value) VALUES ('durability', ?)
ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE value IS NOT excluded.value

-- name: durability
SELECT value FROM meta WHERE key = 'durability'

-- name: index_streams
INSERT INTO streams (aggregate_id, aggregate_type, version, position)
SELECT aggregate_id, coalesce(aggregate_type, ''), stream_version, position FROM events
WHERE position > ? AND position <= ? AND stream_version IS NOT NULL
ORDER BY aggregate_id, coalesce(aggregate_type, ''), stream_version

-- name: index_types
INSERT INTO events_by_type (event_type, position)
SELECT event_type, position FROM events WHERE position > ? AND position <= ? ORDER BY event_type, position

-- name: index_correlations
INSERT INTO events_by_correlation (correlation_id, position)
SELECT correlation_id, position FROM events
WHERE position > ? AND position <= ? AND correlation_id IS NOT NULL ORDER BY correlation_id, position

-- name: unindexed
SELECT aggregate_id, coalesce(aggregate_type, ''), stream_version, position FROM events
WHERE position > ? AND stream_version IS NOT NULL ORDER BY position

-- name: misindexed
SELECT s.aggregate_id, s.aggregate_type, s.version, s.position
FROM streams s LEFT JOIN events e ON e.position = s.position
WHERE s.position >= (SELECT min(position) FROM events)
  AND (e.aggregate_id IS NOT s.aggregate_id OR coalesce(e.aggregate_type, '') <> s.aggregate_type
       OR e.stream_version IS NOT s.version)
UNION ALL
SELECT e.aggregate_id, coalesce(e.aggregate_type, ''), e.stream_version, e.position FROM events e
WHERE e.stream_version IS NOT NULL AND e.position <= (SELECT value FROM meta WHERE key = 'indexed_upto')
  AND NOT EXISTS (SELECT 1 FROM streams s WHERE s.aggregate_id = e.aggregate_id
                  AND s.aggregate_type = coalesce(e.aggregate_type, '') AND s.version = e.stream_version)
LIMIT 100

-- name: recorded_from
SELECT position, recorded_at FROM events WHERE position >= ? ORDER BY position LIMIT 1

-- name: last_recorded
SELECT recorded_at FROM events ORDER BY position DESC LIMIT 1

-- name: event_types
WITH RECURSIVE types(name) AS (
    SELECT min(event_type) FROM events_by_type
    UNION ALL SELECT (SELECT min(event_type) FROM events_by_type WHERE event_type > name) FROM types WHERE name IS NOT NULL)
SELECT name FROM types WHERE name IS NOT NULL
UNION SELECT event_type FROM events WHERE position > (SELECT value FROM meta WHERE key = 'indexed_upto')
ORDER BY 1

-- name: position_of
SELECT position FROM events WHERE event_id = ?

-- name: mark_processed
INSERT INTO processed (position, result, processed_at) VALUES (?, ?, ?)
ON CONFLICT (position) DO UPDATE SET result = excluded.result, processed_at = excluded.processed_at

-- name: unmarked
SELECT position FROM events e
WHERE position > ? AND NOT EXISTS (SELECT 1 FROM processed p WHERE p.position = e.position) ORDER BY position LIMIT ?

-- name: still_unmarked
SELECT position FROM events e
WHERE position IN (SELECT value FROM json_each(?))
  AND NOT EXISTS (SELECT 1 FROM processed p WHERE p.position = e.position) ORDER BY position

-- name: cursors
SELECT name, watermark, frontier, unfinished FROM subscriptions

-- name: exceptional_positions
SELECT position FROM retries UNION SELECT position FROM queued

-- name: count_by_type
SELECT event_type, count(*) FROM events GROUP BY event_type ORDER BY 1

-- name: count_by_aggregate
SELECT coalesce(aggregate_type, ''), count(*) FROM events WHERE aggregate_id IS NOT NULL GROUP BY 1 ORDER BY 1

-- name: span
SELECT count(*), min(occurred_at), max(occurred_at), min(position), max(position) FROM events

-- name: load_snapshot
SELECT data FROM snapshots WHERE aggregate_id = ? AND aggregate_type = ?

-- name: save_snapshot
INSERT OR REPLACE INTO snapshots (aggregate_id, aggregate_type, version, data) VALUES (?, ?, ?, ?)

-- name: drop_snapshot
DELETE FROM snapshots WHERE aggregate_id = ? AND aggregate_type = ?
