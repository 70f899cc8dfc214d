-- Remove what every group has finished. KEYS: log, hash, marks, held. ARGV: how many positions to keep.
-- Returns the position up to which everything may be gone.
local function lowest(key, fallback)
  local found = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return found and tonumber(found) or fallback
end
-- Return the position below which events go, so that as many stay: those between two incarnations were never given.
local function below_kept(head, keep)
  local jumps, facts = {}, redis.call('HGETALL', KEYS[2])
  for index = 1, #facts, 2 do
    local target = string.match(facts[index], '^jump:(%d+)$')
    if target then jumps[#jumps + 1] = {tonumber(target), tonumber(facts[index + 1])} end
  end
  table.sort(jumps, function(one, other) return one[1] > other[1] end)
  for _, jump in ipairs(jumps) do
    if head - jump[1] >= keep then break end
    keep = keep - (head - jump[1])
    head = jump[2]
  end
  return head - keep
end
local head = tonumber(redis.call('HGET', KEYS[2], 'head') or '0')
if redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
local finished = math.min(lowest(KEYS[3], head), lowest(KEYS[4], head + 1) - 1, below_kept(head, tonumber(ARGV[1])))
local floor = tonumber(redis.call('HGET', KEYS[2], 'floor') or '0')
if finished > floor then
  redis.call('HSET', KEYS[2], 'floor', string.format('%.0f', finished))
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', finished + 1))
  floor = finished
end
return floor
