-- Write again the state of a partition that the server has forgotten, from its owner's memory.
-- KEYS: lease, epochs, cursors, retries, watermarks, names.
-- ARGV: owner, epoch, group, then for each subscription: name, number, epoch, the mark that it is held (or why it
-- has halted), cursor, watermark, number of retries, and for each retry its field and its value.
-- Returns each subscription's number, or false if another process has taken the partition, or also given it back. The
-- number differs from the given one if the name has been declared since, or that belongs to another name by now.
local owner = redis.call('HGET', KEYS[1], 'owner')
if owner and owner ~= ARGV[1] then return false end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'epoch', ARGV[2])
local numbers, taken, most = {}, {}, 0
local function take(number)
  taken[number] = true
  most = math.max(most, number)
end
local known = redis.call('HGETALL', KEYS[6])
for index = 2, #known, 2 do take(tonumber(known[index])) end
local i = 4
while i <= #ARGV do
  local name = ARGV[i]
  local number = tonumber(redis.call('HGET', KEYS[6], name) or nil)
  if not number then
    number = tonumber(ARGV[i + 1])
    if taken[number] then number = most + 1 end
    take(number)
    redis.call('HSET', KEYS[6], name, number)
  end
  numbers[#numbers + 1] = number
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
return numbers
