-- Create a subscription's cursor in partitions where it has none yet.
-- If a subscription of this name was forgotten, delete its dead letters whose events will be delivered again.
-- KEYS: names, letters, letter rows, letter states, letter index, letter ids, then for each partition its cursors,
-- its watermarks, its hash and its log.
-- ARGV: group, name, then for each partition its number and a position, or 'now' for the head.
-- Returns the number of the subscription.
local name = ARGV[2]
local number = redis.call('HGET', KEYS[1], name)
if not number then
  number = 1
  local known = redis.call('HGETALL', KEYS[1])
  for index = 2, #known, 2 do number = math.max(number, tonumber(known[index]) + 1) end
  redis.call('HSET', KEYS[1], name, number)
end
local letters
local function forget_letters(partition, place, log)
  letters = letters or redis.call('HKEYS', KEYS[5])
  local prefix, first = partition .. '\0' .. name .. '\0', nil
  for index = 1, #letters do
    local at = letters[index]
    local position = string.sub(at, 1, #prefix) == prefix and tonumber(string.sub(at, #prefix + 1))
    if position and position > tonumber(place) then
      if not first then
        first = math.huge  -- the first position still in the log
        local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
        if oldest then
          local last, count = string.match(oldest[1], '^(%d+)-(%d+)$')
          first = tonumber(last) - tonumber(count) + 1
        end
      end
      if position >= first then
        local id = redis.call('HGET', KEYS[5], at)
        for key = 2, 4 do redis.call('HDEL', KEYS[key], id) end
        redis.call('HDEL', KEYS[5], at)
        redis.call('ZREM', KEYS[6], id)
      end
    end
  end
end
for part = 1, (#ARGV - 2) / 2 do
  local at = 4 * part + 3
  local partition, place = ARGV[2 * part + 1], ARGV[2 * part + 2]
  if redis.call('HEXISTS', KEYS[at], name) == 0 then
    local head = redis.call('HGET', KEYS[at + 2], 'head') or '0'
    if place == 'now' or tonumber(place) > tonumber(head) then place = head end
    redis.call('HSET', KEYS[at], name, 'new:' .. place)
    redis.call('ZADD', KEYS[at + 1], place, ARGV[1] .. '\0' .. name)
    forget_letters(partition, place, KEYS[at + 3])
  end
end
return tonumber(number)
