-- Release a subscription; with 'all', release the partition and all subscriptions held in it.
-- KEYS: lease, epochs. ARGV: owner, name ('' for none), epoch, what ('one' or 'all').
-- Returns 1, or 0 if another owner has the partition.
if redis.call('HGET', KEYS[1], 'owner') ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' and redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[3] then
  redis.call('HINCRBY', KEYS[2], ARGV[2], 1)
  redis.call('HDEL', KEYS[2], ARGV[2] .. '\0held')
end
if ARGV[4] == 'all' then
  redis.call('HSET', KEYS[1], 'owner', '')
  local all = redis.call('HKEYS', KEYS[2])
  for index = 1, #all do
    if string.sub(all[index], -5) == '\0held' then
      redis.call('HDEL', KEYS[2], all[index])
      redis.call('HINCRBY', KEYS[2], string.sub(all[index], 1, -6), 1)
    end
  end
end
return 1
