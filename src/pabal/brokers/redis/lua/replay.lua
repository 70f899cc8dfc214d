-- Request that ranges are delivered to a subscription again; their events are not trimmed until then.
-- KEYS: names, controls, then for each partition its replays and its held positions.
-- ARGV: group, name, then for each partition the first and the last position ('' for no range in it).
-- Returns the number of the replay, or -1 if the subscription is unknown.
local group, name = ARGV[1], ARGV[2]
if redis.call('HEXISTS', KEYS[1], name) == 0 then return -1 end
local number = redis.call('HINCRBY', KEYS[2], '\0replays', 1)
for part = 1, (#KEYS - 2) / 2 do
  local first, last = ARGV[2 * part + 1], ARGV[2 * part + 2]
  if first ~= '' then
    local before = string.format('%.0f', tonumber(first) - 1)
    redis.call('HSET', KEYS[2 * part + 1], name .. '\0' .. number, first .. ':' .. last .. ':' .. before)
    redis.call('ZADD', KEYS[2 * part + 2], first, group .. '\0' .. name .. '\0replay\0' .. number)
  end
end
redis.call('HINCRBY', KEYS[2], '\0version', 1)
return number
