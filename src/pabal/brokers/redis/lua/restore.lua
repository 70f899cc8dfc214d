-- Put back what the server has forgotten of a partition, from what its owner remembers.
-- KEYS: lease, epochs, cursors, retries, marks, names. ARGV: owner, epoch, group, then for each name: name,
-- its number, its epoch, the mark that it is held (or why it has halted), its cursor, its watermark, how many
-- retries, and for each its field and itself.
-- Returns 1, or 0 where somebody has taken the partition meanwhile.
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= '' and owner ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', ARGV[2])
local i = 4
while i <= #ARGV do
  local name = ARGV[i]
  redis.call('HSETNX', KEYS[6], name, ARGV[i + 1])
  redis.call('HSET', KEYS[2], name, ARGV[i + 2], name .. '\0held', ARGV[i + 3])
  redis.call('HSET', KEYS[3], name, ARGV[i + 4])
  redis.call('ZADD', KEYS[5], ARGV[i + 5], ARGV[3] .. '\0' .. name)
  local count = tonumber(ARGV[i + 6])
  i = i + 7
  for _ = 1, count do
    redis.call('HSET', KEYS[4], ARGV[i], ARGV[i + 1])
    i = i + 2
  end
end
return 1
