-- Mark a dead letter as being retried, and leave a call for the partition's owner.
-- KEYS: letter states, letter rows, retries, calls. ARGV: id, new row ('' for none), retry field, retry.
-- Returns 1, 0 if it is being retried already, or -1 if there is no such dead letter.
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state then return -1 end
if state == 'retrying' then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], 'retrying')
if ARGV[2] ~= '' then redis.call('HSET', KEYS[2], ARGV[1], ARGV[2]) end
redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
redis.call('SADD', KEYS[4], ARGV[1])
return 1
