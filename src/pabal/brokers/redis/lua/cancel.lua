-- Cancel the replays of a subscription.
-- KEYS: names, controls, then for each partition its replays and its held positions. ARGV: group, name.
-- Returns the number of replays cancelled, or -1 if the subscription is unknown.
local group, name = ARGV[1], ARGV[2]
if redis.call('HEXISTS', KEYS[1], name) == 0 then return -1 end
local mine, numbers, count = name .. '\0', {}, 0
for part = 3, #KEYS, 2 do
  local all = redis.call('HKEYS', KEYS[part])
  for index = 1, #all do
    if string.sub(all[index], 1, #mine) == mine then
      local number = string.sub(all[index], #mine + 1)
      if not numbers[number] then
        numbers[number] = true
        count = count + 1
      end
      redis.call('HDEL', KEYS[part], all[index])
      redis.call('ZREM', KEYS[part + 1], group .. '\0' .. mine .. 'replay\0' .. number)
    end
  end
end
if count > 0 then redis.call('HINCRBY', KEYS[2], '\0version', 1) end
return count
