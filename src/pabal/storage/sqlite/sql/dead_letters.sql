-- Dead letters.

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

-- name: count_dead_letters
SELECT count(*) FROM dead_letters

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
