-- Delete a dead letter, and its retry if one is under way; leave a call for the partition's owner.
-- KEYS: letters, letter rows, letter states, letter index, letter ids, retries, blocking, calls.
-- ARGV: id, its field in the index, its field in retries, its field in blocking, the call.
-- Returns 1, or 0 if there is no such dead letter.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
for key = 1, 3 do redis.call('HDEL', KEYS[key], ARGV[1]) end
redis.call('HDEL', KEYS[4], ARGV[2])
redis.call('ZREM', KEYS[5], ARGV[1])
redis.call('HDEL', KEYS[6], ARGV[3])
redis.call('HDEL', KEYS[7], ARGV[4])
redis.call('SADD', KEYS[8], ARGV[5])
return 1
