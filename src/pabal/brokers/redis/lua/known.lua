-- Remember of a partition's last jump in positions how far they had come before, where somebody knows better
-- than the server did. KEYS: the partition's hash. ARGV: the highest position that was given for certain.
local known = tonumber(ARGV[1])
local facts = redis.call('HGETALL', KEYS[1])
for index = 1, #facts, 2 do
  local target = string.match(facts[index], '^jump:(%d+)$')
  if target and tonumber(target) > known and tonumber(facts[index + 1]) < known then
    redis.call('HSET', KEYS[1], facts[index], ARGV[1])
  end
end
return tonumber(redis.call('HGET', KEYS[1], 'head') or '0')
