-- Request a reset of a subscription in every partition; owners obey when they open the subscription again.
-- Events above each position are not trimmed until then. Earlier replays are deleted; later ones are not.
-- KEYS: names, controls, then for each partition its moves, held positions, hash, replays and epochs.
-- ARGV: group, name, then for each partition a position, or 'now' for the head.
-- Returns the positions, or nil if the subscription is unknown.
local group, name = ARGV[1], ARGV[2]
if redis.call('HEXISTS', KEYS[1], name) == 0 then return false end
local mine, places = name .. '\0', {}
for part = 1, #ARGV - 2 do
  local at = 5 * part - 2
  local head = redis.call('HGET', KEYS[at + 2], 'head') or '0'
  local place, asked = ARGV[part + 2], ARGV[part + 2]
  if place == 'now' or tonumber(place) > tonumber(head) then place = head end
  redis.call('HSET', KEYS[at], name, (asked == 'now' and 'now:' or '') .. place)
  redis.call('ZADD', KEYS[at + 1], string.format('%.0f', tonumber(place) + 1), group .. '\0' .. name .. '\0moved')
  local replays = redis.call('HKEYS', KEYS[at + 3])
  for index = 1, #replays do
    if string.sub(replays[index], 1, #mine) == mine then
      redis.call('HDEL', KEYS[at + 3], replays[index])
      redis.call('ZREM', KEYS[at + 1], group .. '\0' .. mine .. 'replay\0' .. string.sub(replays[index], #mine + 1))
    end
  end
  local held = redis.call('HGET', KEYS[at + 4], mine .. 'held')
  if held and held ~= '1' then redis.call('HSET', KEYS[at + 4], mine .. 'held', '1') end  -- it had halted
  places[part] = place
end
redis.call('HINCRBY', KEYS[2], name .. '\0moves', 1)
redis.call('HINCRBY', KEYS[2], '\0version', 1)
return places
