-- Pause a subscription, or let it go on; who owns partitions sees that the version is another.
-- KEYS: names, controls. ARGV: name, '1' to pause or '0' to go on.
-- Returns 1, 0 where it is so already, or -1 where nothing ever subscribed under the name.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return -1 end
if (redis.call('HGET', KEYS[2], ARGV[1]) or '0') == ARGV[2] then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], '\0version', 1)
return 1
