-- Create a subscription's cursor in partitions where it has none yet.
-- KEYS: names, then for each partition its cursors, its watermarks and its hash.
-- ARGV: group, name, then for each partition a position, or 'now' for the head.
-- Returns the number of the subscription.
local number = redis.call('HGET', KEYS[1], ARGV[2])
if not number then
  number = 1
  local known = redis.call('HGETALL', KEYS[1])
  for index = 2, #known, 2 do number = math.max(number, tonumber(known[index]) + 1) end
  redis.call('HSET', KEYS[1], ARGV[2], number)
end
for part = 1, #ARGV - 2 do
  local at = 3 * part - 1
  local place = ARGV[part + 2]
  if redis.call('HEXISTS', KEYS[at], ARGV[2]) == 0 then
    local head = redis.call('HGET', KEYS[at + 2], 'head') or '0'
    if place == 'now' or tonumber(place) > tonumber(head) then place = head end
    redis.call('HSET', KEYS[at], ARGV[2], 'new:' .. place)
    redis.call('ZADD', KEYS[at + 1], place, ARGV[1] .. '\0' .. ARGV[2])
  end
end
return tonumber(number)
