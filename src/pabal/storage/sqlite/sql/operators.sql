-- Queries of operators: the log's extent, streams, deliveries, the audit log, samples.

-- name: extent
SELECT coalesce((SELECT min(position) FROM events), 0), coalesce((SELECT max(position) FROM events), 0),
       (SELECT count(*) FROM scheduled)

-- name: stream_page
SELECT * FROM (
    SELECT version, position FROM streams
    WHERE aggregate_id = ?1 AND aggregate_type = ?2 AND version > ?3
    AND position >= (SELECT min(position) FROM events) ORDER BY version LIMIT ?4)
UNION
SELECT stream_version, position FROM events
WHERE position > (SELECT value FROM meta WHERE key = 'indexed_upto')
  AND aggregate_id = ?1 AND coalesce(aggregate_type, '') = ?2 AND stream_version > ?3
ORDER BY version LIMIT ?4

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
SELECT q.subscription FROM subscriptions s CROSS JOIN queued q ON q.subscription = s.name AND q.position = ?

-- name: retries_at
SELECT r.subscription, r.attempts, r.due_at, r.failures
FROM subscriptions s CROSS JOIN retries r ON r.subscription = s.name AND r.position = ?

-- name: recoveries_at
SELECT subscription, position, attempts, failures, finished_at FROM recoveries WHERE position = ? ORDER BY id

-- name: dead_letters_at
-- The index begins with the subscription, and not all of those are in ``subscriptions`` any more. So the names are
-- found in the index itself, with one search each.
WITH RECURSIVE names (name) AS (
    SELECT min(subscription) FROM dead_letters
    UNION ALL
    SELECT (SELECT min(subscription) FROM dead_letters WHERE subscription > name) FROM names WHERE name IS NOT NULL)
SELECT d.subscription, d.id, d.state, d.failures
FROM names CROSS JOIN dead_letters d ON d.subscription = name AND d.position = ?

-- name: begin_action
INSERT INTO audit (at, actor, action, subject, details) VALUES (?, ?, ?, ?, ?) RETURNING id

-- name: finish_action
UPDATE audit SET result = ?, succeeded = ? WHERE id = ?

-- name: actions
SELECT id, at, actor, action, subject, details, result, succeeded FROM audit
WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2

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
