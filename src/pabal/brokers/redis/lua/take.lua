-- Take a partition that has no owner, or whose owner is known to be dead.
-- KEYS: lease, epochs, members, retries.
-- ARGV: new owner, previous owner ('' for none), then fields and values of retries: the attempts in which the
-- previous owner died.
-- Returns the new epoch, or 0 if another process was quicker.
local owner = redis.call('HGET', KEYS[1], 'owner') or ''
if owner ~= ARGV[2] then return 0 end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1])
local all = redis.call('HKEYS', KEYS[2])
for index = 1, #all do
  if string.sub(all[index], -5) == '\0held' then redis.call('HDEL', KEYS[2], all[index]) end
end
for index = 3, #ARGV, 2 do redis.call('HSET', KEYS[4], ARGV[index], ARGV[index + 1]) end
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
