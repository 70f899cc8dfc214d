-- Delete a partition's events that every group has finished, except the newest ones.
-- KEYS: log, hash, watermarks, held positions. ARGV: how many positions to keep.
-- Returns the floor, the position up to which events may be deleted; -1 if there is no subscription.
local function lowest(key, fallback)
  local found = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return found and tonumber(found) or fallback
end
-- The jumps of the partition's positions, lowest first: from the end of an incarnation to the start of the next.
local jumps, facts = {}, redis.call('HGETALL', KEYS[2])
for index = 1, #facts, 2 do
  local target = string.match(facts[index], '^jump:(%d+)$')
  if target then jumps[#jumps + 1] = {tonumber(facts[index + 1]), tonumber(target)} end
end
table.sort(jumps, function(one, other) return one[2] < other[2] end)
-- Return the position up to which events are deleted to keep `keep` of them; positions inside a jump hold none.
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
  -- First, because a full server allows a script whose first write needs no memory.
  redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-0', finished + 1))
  redis.call('HSET', KEYS[2], 'floor', string.format('%.0f', finished))
  floor = finished
end
-- Merge jumps below the floor, and jumps with no position in between, into one of their total length.
for index = 2, #jumps do
  local lower, upper = jumps[index - 1], jumps[index]
  if upper[2] <= floor or upper[1] == lower[2] then
    upper[1] = upper[1] - (lower[2] - lower[1])
    redis.call('HDEL', KEYS[2], 'jump:' .. string.format('%.0f', lower[2]))
    redis.call('HSET', KEYS[2], 'jump:' .. string.format('%.0f', upper[2]), string.format('%.0f', upper[1]))
  end
end
return floor
