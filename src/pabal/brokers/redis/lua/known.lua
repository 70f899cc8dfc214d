-- Correct a jump of a partition's positions (see join.lua): a process knows of higher positions before the jump
-- than the server remembered after its restart.
-- KEYS: the partition's hash. ARGV: the highest position known to have been assigned.
local known = tonumber(ARGV[1])
-- Where the incarnation of that position begins. Positions below were never assigned, or are counted already.
local begin = known - known % 4294967296
local floor = tonumber(redis.call('HGET', KEYS[1], 'floor') or '0')
local facts = redis.call('HGETALL', KEYS[1])
for index = 1, #facts, 2 do
  local target = string.match(facts[index], '^jump:(%d+)$')
  local before = tonumber(facts[index + 1])
  if target and tonumber(target) > math.max(known, floor) and before < known then
    redis.call('HSET', KEYS[1], facts[index], ARGV[1])
    if before < begin then redis.call('HSETNX', KEYS[1], 'jump:' .. string.format('%.0f', begin), facts[index + 1]) end
  end
end
