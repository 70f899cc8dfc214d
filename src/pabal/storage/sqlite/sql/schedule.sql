-- Scheduled events.

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
FROM scheduled WHERE due_at <= ? ORDER BY due_at, event_id LIMIT ? OFFSET ?

-- name: next_due
SELECT min(due_at) FROM scheduled WHERE due_at > ?

-- name: all_scheduled
SELECT event_id, event_type, schema_version, aggregate_type, aggregate_id, occurred_at,
       correlation_id, causation_id, metadata, payload, checksum FROM scheduled

-- name: unschedule
DELETE FROM scheduled WHERE event_id = ?
