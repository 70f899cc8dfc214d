-- Subscriptions: control requests, holders, progress, retries and queues.

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

-- name: request_move
INSERT OR REPLACE INTO moves (subscription, position) VALUES (?, ?)

-- name: requested_move
SELECT position FROM moves WHERE subscription = ?

-- name: end_move
DELETE FROM moves WHERE subscription = ?

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
SELECT position FROM dead_letters WHERE subscription = ?1 AND position > ?2 AND position <= ?3
UNION SELECT position FROM queued WHERE subscription = ?1 AND position > ?2 AND position <= ?3
ORDER BY position

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
