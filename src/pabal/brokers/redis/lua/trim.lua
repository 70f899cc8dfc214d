-- Remove what every group has finished. KEYS: log, hash, marks, held. ARGV: how many positions to keep.
-- Returns the position up to which everything may be gone.
local function lowest(key, fallback)
  local found = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return found and tonumber(found) or fallback
end
local head = tonumber(redis.call('HGET', KEYS[2], 'head') or '0')
if redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
local finished = math.min(lowest(KEYS[3], head), lowest(KEYS[4], head + 1) - 1, head - tonumber(ARGV[1]))
local floor = tonumber(redis.call('HGET', KEYS[2], 'floor') or '0')
if finished > floor then
  redis.call('HSET', KEYS[2], 'floor', string.format('%.0f', finished))
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', finished + 1))
  floor = finished
end
return floor
