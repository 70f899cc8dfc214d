-- Write again the state of a partition that the server has forgotten, from its owner's memory.
-- KEYS: lease, epochs, cursors, retries, watermarks, names.
-- ARGV: owner, epoch, group, then for each subscription: name, number, epoch, the mark that it is held (or why it
-- has halted), cursor, watermark, number of retries, and for each retry its field and its value.
-- Returns 1, or 0 if another process has taken the partition.
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
