-- Delete a subscription that no process holds in any partition; its dead letters stay, and block no key any more.
-- KEYS: names, controls, letter states, letter index, then for each partition its lease, epochs, cursors, retries,
-- queued, queue, moves, replays, watermarks, held positions and blocking. ARGV: group, name.
-- Returns 1, 0 if the subscription is unknown, or -1 if a process holds it.
local group, name = ARGV[1], ARGV[2]
local number = redis.call('HGET', KEYS[1], name)
if not number then return 0 end
for part = 5, #KEYS, 11 do
  local owner = redis.call('HGET', KEYS[part], 'owner') or ''
  if owner ~= '' and redis.call('HEXISTS', KEYS[part + 1], name .. '\0held') == 1 then return -1 end
end
local mine = name .. '\0'
local function each(key, act)
  local all = redis.call('HKEYS', key)
  for index = 1, #all do
    if string.sub(all[index], 1, #mine) == mine then
      act(string.sub(all[index], #mine + 1), redis.call('HGET', key, all[index]))
      redis.call('HDEL', key, all[index])
    end
  end
end
for part = 5, #KEYS, 11 do
  local queue, held = KEYS[part + 5], KEYS[part + 9]
  each(KEYS[part + 3], function() end)
  each(KEYS[part + 4], function(position, key)
    redis.call('ZREM', queue, mine .. key .. '\0' .. string.format('%016.0f', tonumber(position)))
    redis.call('ZREM', held, group .. '\0' .. mine .. position)
  end)
  each(KEYS[part + 7], function(replay) redis.call('ZREM', held, group .. '\0' .. mine .. 'replay\0' .. replay) end)
  each(KEYS[part + 10], function() end)
  redis.call('ZREM', held, group .. '\0' .. mine .. 'moved')
  redis.call('HDEL', KEYS[part + 1], name, name .. '\0held')
  redis.call('HDEL', KEYS[part + 2], name)
  redis.call('HDEL', KEYS[part + 6], name)
  redis.call('ZREM', KEYS[part + 8], group .. '\0' .. name)
end
local letters = redis.call('HGETALL', KEYS[4])
for index = 1, #letters, 2 do
  local from = string.find(letters[index], '\0', 1, true)
  if from and string.sub(letters[index], from + 1, from + #mine) == mine then
    redis.call('HSET', KEYS[3], letters[index + 1], 'parked')  -- its retry is gone
  end
end
-- Its number is never used again, because notes of attempts refer to subscriptions by number.
redis.call('HDEL', KEYS[1], name)
redis.call('HSET', KEYS[1], '\0' .. number, number)
redis.call('HDEL', KEYS[2], name, name .. '\0moves')
redis.call('HINCRBY', KEYS[2], '\0version', 1)
return 1
