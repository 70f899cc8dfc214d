-- Delete calls to retry dead letters that are not to be retried (any more).
-- KEYS: calls, letter states. ARGV: ids.
-- A dead letter may have been parked again, and its retry been called for again, since its state was last read.
for index = 1, #ARGV do
  if redis.call('HGET', KEYS[2], ARGV[index]) ~= 'retrying' then redis.call('SREM', KEYS[1], ARGV[index]) end
end
return 1
