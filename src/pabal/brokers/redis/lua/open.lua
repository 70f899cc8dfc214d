-- Take a subscription in a partition that this owner holds, or that has no owner.
-- KEYS: lease, epochs, cursors, retries, queue, blocking, controls, moves, replays. ARGV: owner, name.
-- Returns nil while another owner has the partition, {0} if the subscription has no cursor, else its epoch,
-- cursor, retries, blocked keys, whether it is paused, how many resets were requested so far, all replays, and
-- whether a requested reset is still to be carried out.
local owner = redis.call('HGET', KEYS[1], 'owner')
if not owner or owner == '' then
  redis.call('HINCRBY', KEYS[1], 'epoch', 1)
  redis.call('HSET', KEYS[1], 'owner', ARGV[1])
elseif owner ~= ARGV[1] then
  return false
end
local name = ARGV[2]
local cursor = redis.call('HGET', KEYS[3], name)
if not cursor then return {0} end
local epoch = redis.call('HINCRBY', KEYS[2], name, 1)
redis.call('HSET', KEYS[2], name .. '\0held', 1)
local retries, keys = {}, {}
local prefix = name .. '\0'
local function of_name(hash, target)
  local all = redis.call('HGETALL', hash)
  for index = 1, #all, 2 do
    if string.sub(all[index], 1, #prefix) == prefix then target[#target + 1] = all[index + 1] end
  end
end
of_name(KEYS[4], retries)
of_name(KEYS[6], keys)
-- Find the keys that have a queue by jumping to the first entry of each.
local from = '[' .. prefix
local upto = '(' .. name .. '\1'
while true do
  local found = redis.call('ZRANGEBYLEX', KEYS[5], from, upto, 'LIMIT', 0, 1)[1]
  if not found then break end
  local key = string.sub(found, #prefix + 1, #found - 17)
  keys[#keys + 1] = key
  from = '[' .. prefix .. key .. '\1'
end
local asked = redis.call('HMGET', KEYS[7], name, name .. '\0moves')
local paused = asked[1] == '1' and 1 or 0
local replays = redis.call('HGETALL', KEYS[9])
local moves = tonumber(asked[2] or '0')
return {epoch, cursor, retries, keys, paused, moves, replays, redis.call('HEXISTS', KEYS[8], name)}
