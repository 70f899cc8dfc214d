-- Every statement the storage runs, by name.

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

-- name: indexed_upto
SELECT value FROM meta WHERE key = 'indexed_upto'

-- name: set_indexed_upto
UPDATE meta SET value = ? WHERE key = 'indexed_upto'

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

-- name: controls
SELECT value FROM meta WHERE key = 'controls'

-- name: count_control
UPDATE meta SET value = value + 1 WHERE key = 'controls'

-- name: set_paused
UPDATE subscriptions SET paused = ?1 WHERE name = ?2 AND paused <> ?1

-- name: note_halt
INSERT OR REPLACE INTO halts (subscription, epoch, reason)
SELECT name, epoch, ? FROM subscriptions WHERE name = ? AND epoch = ? AND owner = ?

-- name: halts
SELECT h.subscription, h.reason FROM halts h JOIN subscriptions s ON s.name = h.subscription AND s.epoch = h.epoch
WHERE s.owner IS NOT NULL AND s.lease_until > ?

-- name: end_halt
DELETE FROM halts WHERE subscription = ?

-- name: request_reopening
UPDATE subscriptions SET reopenings = reopenings + 1 WHERE name = ?

-- name: subscription_names
SELECT name FROM subscriptions ORDER BY name

-- name: reset_cursor
UPDATE subscriptions SET watermark = ?1, frontier = ?1, unfinished = NULL, updated_at = ?2 WHERE name = ?3

-- name: forget_letters_above
DELETE FROM dead_letters WHERE subscription = ?1 AND position > ?2 AND position >= (SELECT min(position) FROM events)

-- name: settle_letters
UPDATE dead_letters SET state = 'parked', ordering_key = NULL WHERE subscription = ?

-- name: request_replay
INSERT INTO replays (subscription, first_position, last_position, watermark) VALUES (?, ?, ?, ?) RETURNING id

-- name: replays
SELECT id, subscription, first_position, last_position, watermark FROM replays WHERE subscription = ? ORDER BY id

-- name: all_replays
SELECT id, subscription, first_position, last_position, watermark FROM replays ORDER BY id

-- name: advance_replay
UPDATE replays SET watermark = max(watermark, ?) WHERE id = ? AND subscription = ?

-- name: finish_replays
DELETE FROM replays WHERE subscription = ? AND watermark >= last_position

-- name: forget_replays
DELETE FROM replays WHERE subscription = ?

-- name: parked_within
SELECT position FROM dead_letters WHERE subscription = ? AND position > ? AND position <= ?

-- name: subscription
SELECT number, name, watermark, frontier, unfinished, owner, lease_until, epoch, paused, reopenings
FROM subscriptions WHERE name = ?

-- name: insert_subscription
INSERT INTO subscriptions (name, watermark, frontier, owner, lease_until, epoch, created_at, updated_at)
VALUES (?, ?, ?, ?, ?, 1, ?, ?) RETURNING number

-- name: take_subscription
UPDATE subscriptions SET owner = ?, lease_until = ?, epoch = epoch + 1 WHERE name = ? RETURNING epoch

-- name: release_subscription
UPDATE subscriptions SET owner = NULL, lease_until = 0 WHERE name = ? AND epoch = ? AND owner = ?

-- name: renew_lease
UPDATE subscriptions SET lease_until = ? WHERE name = ? AND epoch = ? AND owner = ?

-- name: save_progress
UPDATE subscriptions SET watermark = ?, frontier = ?, unfinished = ?, updated_at = ?
WHERE name = ? AND epoch = ? AND owner = ?

-- name: owned_by
SELECT number, name, watermark, frontier, unfinished FROM subscriptions WHERE owner = ?

-- name: disown
UPDATE subscriptions SET owner = NULL, lease_until = 0 WHERE owner = ?

-- name: disown_all
UPDATE subscriptions SET owner = NULL, lease_until = 0

-- name: list_subscriptions
SELECT s.name, s.watermark, s.frontier, s.unfinished,
       (SELECT count(*) FROM retries r WHERE r.subscription = s.name),
       (SELECT count(*) FROM dead_letters d WHERE d.subscription = s.name),
       (SELECT count(*) FROM queued q WHERE q.subscription = s.name),
       CASE WHEN s.lease_until > ? THEN s.owner END, s.epoch, s.updated_at, s.paused, s.created_at
FROM subscriptions s ORDER BY s.name

-- name: retries
SELECT position, attempts, due_at, failures, from_dead_letter FROM retries WHERE subscription = ? ORDER BY position

-- name: retry
SELECT attempts, failures, from_dead_letter FROM retries WHERE subscription = ? AND position = ?

-- name: retries_beside_the_queue
SELECT r.position FROM retries r
WHERE r.subscription = ?1 AND r.position <= ?2 AND r.from_dead_letter = 0
  AND NOT EXISTS (SELECT 1 FROM queued q WHERE q.subscription = ?1 AND q.position = r.position)

-- name: put_retry
INSERT INTO retries (subscription, position, attempts, due_at, failures, from_dead_letter) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (subscription, position) DO UPDATE SET attempts = excluded.attempts, due_at = excluded.due_at,
    failures = excluded.failures, from_dead_letter = excluded.from_dead_letter

-- name: keep_recovery
INSERT INTO recoveries (subscription, position, attempts, failures, finished_at)
SELECT ?, position, ?, ?, ? FROM events WHERE position = ?

-- name: bound_recoveries
DELETE FROM recoveries WHERE id <= (SELECT max(id) FROM recoveries) - ?

-- name: delete_retry
DELETE FROM retries WHERE subscription = ? AND position = ?

-- name: delete_queued
DELETE FROM queued WHERE subscription = ? AND position = ?

-- name: put_queued
INSERT OR IGNORE INTO queued (subscription, ordering_key, position) VALUES (?, ?, ?)

-- name: queued_positions
SELECT position FROM queued WHERE subscription = ? AND ordering_key = ? ORDER BY position LIMIT ?

-- name: blocked_keys
SELECT ordering_key FROM dead_letters WHERE subscription = ?1 AND ordering_key IS NOT NULL
UNION SELECT ordering_key FROM queued WHERE subscription = ?1

-- name: park_again
UPDATE dead_letters SET state = 'parked', reason = ?, failures = ?, error_type = ?, parked_at = ?, ordering_key = ?
WHERE subscription = ? AND position = ?

-- name: park
INSERT INTO dead_letters (subscription, position, state, reason, failures, error_type, parked_at, ordering_key,
    event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at, correlation_id, causation_id,
    metadata, payload, checksum, stream_version, recorded_at)
SELECT ?, position, 'parked', ?, ?, ?, ?, ?, event_id, event_type, schema_version, aggregate_type, aggregate_id,
    occurred_at, correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at
FROM events WHERE position = ?

-- name: dead_letter_done
DELETE FROM dead_letters WHERE subscription = ? AND position = ? AND state = 'retrying'

-- name: dead_letters
SELECT d.id, d.subscription, d.position, d.state, d.reason, d.failures, d.parked_at, d.ordering_key,
       (SELECT count(*) FROM queued q WHERE q.subscription = d.subscription AND q.ordering_key = d.ordering_key),
       d.position, d.event_id, d.event_type, d.schema_version, d.aggregate_type, d.aggregate_id, d.occurred_at,
       d.correlation_id, d.causation_id, d.metadata, d.payload, d.checksum, d.stream_version, d.recorded_at
FROM dead_letters d
WHERE d.id > ?1 AND (?2 IS NULL OR d.subscription = ?2) AND (?3 IS NULL OR d.event_type = ?3)
  AND (?4 IS NULL OR d.error_type = ?4)
ORDER BY d.id LIMIT ?5

-- name: dead_letter_groups
SELECT subscription, error_type, count(*), min(parked_at), max(parked_at), max(id)
FROM dead_letters GROUP BY subscription, error_type ORDER BY 3 DESC, 1, 2

-- name: dead_letter
SELECT d.id, d.subscription, d.position, d.state, d.reason, d.failures, d.parked_at, d.ordering_key,
       (SELECT count(*) FROM queued q WHERE q.subscription = d.subscription AND q.ordering_key = d.ordering_key),
       d.position, d.event_id, d.event_type, d.schema_version, d.aggregate_type, d.aggregate_id, d.occurred_at,
       d.correlation_id, d.causation_id, d.metadata, d.payload, d.checksum, d.stream_version, d.recorded_at
FROM dead_letters d WHERE d.id = ?

-- name: begin_retry
UPDATE dead_letters SET state = 'retrying', payload = ?, schema_version = ?, checksum = ? WHERE id = ?

-- name: delete_dead_letter
DELETE FROM dead_letters WHERE id = ?

-- name: schedule
INSERT INTO scheduled (event_id, due_at, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
                       correlation_id, causation_id, metadata, payload, checksum)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: scheduled_event
SELECT event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
       correlation_id, causation_id, metadata, payload, checksum FROM scheduled WHERE event_id = ?

-- name: due
SELECT event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
       correlation_id, causation_id, metadata, payload, checksum
FROM scheduled WHERE due_at <= ? ORDER BY due_at, event_id LIMIT ?

-- name: next_due
SELECT min(due_at) FROM scheduled WHERE due_at > ?

-- name: all_scheduled
SELECT event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
       correlation_id, causation_id, metadata, payload, checksum FROM scheduled

-- name: unschedule
DELETE FROM scheduled WHERE event_id = ?

-- name: mark_processed
INSERT INTO processed (position, result, processed_at) VALUES (?, ?, ?)
ON CONFLICT (position) DO UPDATE SET result = excluded.result, processed_at = excluded.processed_at

-- name: unmarked
SELECT position, event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
       correlation_id, causation_id, metadata, payload, checksum, stream_version, recorded_at
FROM events e WHERE NOT EXISTS (SELECT 1 FROM processed p WHERE p.position = e.position) ORDER BY position LIMIT ?

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

-- name: trim_bound
SELECT min(bound) FROM (
    SELECT min(watermark) AS bound FROM subscriptions
    UNION ALL SELECT min(watermark) FROM replays
    UNION ALL SELECT min(position) - 1 FROM queued
    UNION ALL SELECT min(position) - 1 FROM retries WHERE from_dead_letter = 0)

-- name: slower_than
SELECT name FROM subscriptions WHERE watermark < ? ORDER BY name

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
DELETE FROM streams WHERE aggregate_id = ? AND aggregate_type = ? AND version = ?
AND version < (SELECT max(s.version) FROM streams s
               WHERE s.aggregate_id = streams.aggregate_id AND s.aggregate_type = streams.aggregate_type)

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

-- name: extent
SELECT coalesce((SELECT min(position) FROM events), 0), coalesce((SELECT max(position) FROM events), 0),
       (SELECT count(*) FROM scheduled)

-- name: stream_page
SELECT position FROM (
    SELECT aggregate_type, version, position FROM streams
    WHERE aggregate_id = ?1 AND (?2 IS NULL OR aggregate_type = ?2) AND version > ?3
    UNION
    SELECT coalesce(aggregate_type, ''), stream_version, position FROM events
    WHERE position > (SELECT value FROM meta WHERE key = 'indexed_upto')
      AND aggregate_id = ?1 AND (?2 IS NULL OR coalesce(aggregate_type, '') = ?2) AND stream_version > ?3
) ORDER BY aggregate_type, version LIMIT ?4

-- name: stream_from
SELECT aggregate_id, aggregate_type FROM streams WHERE (aggregate_id, aggregate_type) >= (?, ?)
ORDER BY aggregate_id, aggregate_type LIMIT 1

-- name: stream_after
SELECT aggregate_id, aggregate_type FROM streams WHERE (aggregate_id, aggregate_type) > (?, ?)
ORDER BY aggregate_id, aggregate_type LIMIT 1

-- name: unindexed_streams
SELECT aggregate_id, coalesce(aggregate_type, ''), max(stream_version) FROM events
WHERE position > (SELECT value FROM meta WHERE key = 'indexed_upto') AND stream_version IS NOT NULL
GROUP BY 1, 2

-- name: queued_at
SELECT subscription FROM queued WHERE position = ?

-- name: retries_at
SELECT subscription, attempts, due_at, failures FROM retries WHERE position = ?

-- name: recoveries_at
SELECT subscription, position, attempts, failures, finished_at FROM recoveries WHERE position = ? ORDER BY id

-- name: dead_letters_at
SELECT subscription, id, state, failures FROM dead_letters WHERE position = ?

-- name: begin_action
INSERT INTO audit (at, actor, action, subject, details) VALUES (?, ?, ?, ?, ?) RETURNING id

-- name: finish_action
UPDATE audit SET result = ?, succeeded = ? WHERE id = ?

-- name: actions
SELECT id, at, actor, action, subject, details, result, succeeded FROM audit
WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2

-- name: load_snapshot
SELECT data FROM snapshots WHERE aggregate_id = ? AND aggregate_type = ?

-- name: save_snapshot
INSERT OR REPLACE INTO snapshots (aggregate_id, aggregate_type, version, data) VALUES (?, ?, ?, ?)

-- name: drop_snapshot
DELETE FROM snapshots WHERE aggregate_id = ? AND aggregate_type = ?

-- name: record_sample
INSERT OR REPLACE INTO samples (at, source, seconds, handled, failed, lag, p50, p99, subscriptions, retrying, parked)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT count(*) FROM retries), (SELECT count(*) FROM dead_letters))

-- name: thin_samples
DELETE FROM samples WHERE at >= ? AND at < ? AND at % ? >= ?

-- name: forget_samples
DELETE FROM samples WHERE at < ?

-- name: latest_samples
SELECT max(at), source, seconds, handled, failed, lag, p50, p99, subscriptions FROM samples
WHERE at >= ? GROUP BY source ORDER BY source

-- name: sample_series
SELECT (at - ?1) / ?2, sum(handled) / sum(seconds) * count(DISTINCT source), max(lag),
       sum(p50 * handled) / nullif(sum(CASE WHEN p50 IS NOT NULL THEN handled END), 0), max(p99), max(retrying), max(parked)
FROM samples WHERE at >= ?1 AND at < ?3 GROUP BY 1
