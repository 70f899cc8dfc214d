-- Remember of a partition's last jump in positions how far they had come before, where somebody knows better
-- than the server did. KEYS: the partition's hash. ARGV: the highest position that was given for certain.
local known = tonumber(ARGV[1])
local begin = known - known % 4294967296  -- of its incarnation: what lies below was not given, or counts already
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
