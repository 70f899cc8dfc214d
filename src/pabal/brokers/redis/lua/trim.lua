-- Remove what every group has finished. KEYS: log, hash, marks, held. ARGV: how many positions to keep.
-- Returns the position up to which everything may be gone.
local function lowest(key, fallback)
  local found = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return found and tonumber(found) or fallback
end
-- The jumps of the partition's positions, from which to where, lowest first.
local jumps, facts = {}, redis.call('HGETALL', KEYS[2])
for index = 1, #facts, 2 do
  local target = string.match(facts[index], '^jump:(%d+)$')
  if target then jumps[#jumps + 1] = {tonumber(facts[index + 1]), tonumber(target)} end
end
table.sort(jumps, function(one, other) return one[2] < other[2] end)
-- Return the position below which events go, so that as many stay: those between two incarnations were never given.
local function below_kept(head, keep)
  for index = #jumps, 1, -1 do
    local before, target = jumps[index][1], jumps[index][2]
    if head - target >= keep then break end
    keep = keep - (head - target)
    head = before
  end
  return head - keep
end
local head = tonumber(redis.call('HGET', KEYS[2], 'head') or '0')
if redis.call('EXISTS', KEYS[3]) == 0 then return -1 end
local finished = math.min(lowest(KEYS[3], head), lowest(KEYS[4], head + 1) - 1, below_kept(head, tonumber(ARGV[1])))
local floor = tonumber(redis.call('HGET', KEYS[2], 'floor') or '0')
if finished > floor then
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', finished + 1))  -- first: a full server allows that
  redis.call('HSET', KEYS[2], 'floor', string.format('%.0f', finished))
  floor = finished
end
-- One jump is left for all that lie below, and for those with nothing in between: as long as they are together.
for index = 2, #jumps do
  local lower, upper = jumps[index - 1], jumps[index]
  if upper[2] <= floor or upper[1] == lower[2] then
    upper[1] = upper[1] - (lower[2] - lower[1])
    redis.call('HDEL', KEYS[2], 'jump:' .. string.format('%.0f', lower[2]))
    redis.call('HSET', KEYS[2], 'jump:' .. string.format('%.0f', upper[2]), string.format('%.0f', upper[1]))
  end
end
return floor
