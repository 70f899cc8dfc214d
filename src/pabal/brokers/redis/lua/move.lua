-- Let a subscription stand elsewhere in one partition, unless somebody else than the holder of an epoch has it.
-- Retries, replays and places in queues are forgotten, and so are dead letters whose events come again; others stay.
-- KEYS: lease, epochs, cursors, retries, queued, queue, blocking, marks, held, letters, letter rows,
-- letter states, letter index, letter ids, moves, log, the partition's hash, replays.
-- ARGV: group, partition, name, a position, 'now', or '' for what was asked, the epoch ('' for none).
-- Returns the place, '' where nothing is asked (any more), or -1 where somebody else has it.
local group, partition, name, place = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if place == '' then place = redis.call('HGET', KEYS[15], name) end
if not place then return '' end
local owner = redis.call('HGET', KEYS[1], 'owner') or ''
if owner ~= '' and redis.call('HEXISTS', KEYS[2], name .. '\0held') == 1
  and redis.call('HGET', KEYS[2], name) ~= ARGV[5] then return -1 end
local head = redis.call('HGET', KEYS[17], 'head') or '0'
local skips = string.match(place, '^now:(%d+)$')
if skips then
  -- It has gone on until it obeyed: what it has finished since it was asked does not come again.
  place = string.format('%.0f', math.max(tonumber(skips), redis.call('ZSCORE', KEYS[8], group .. '\0' .. name) or 0))
elseif place == 'now' or tonumber(place) > tonumber(head) then
  place = head
end

local function each(key, prefix, act)
  local all = redis.call('HKEYS', key)
  for index = 1, #all do
    if string.sub(all[index], 1, #prefix) == prefix then act(all[index], string.sub(all[index], #prefix + 1)) end
  end
end
local mine = name .. '\0'
each(KEYS[4], mine, function(at) redis.call('HDEL', KEYS[4], at) end)
each(KEYS[5], mine, function(at, position)
  local key = redis.call('HGET', KEYS[5], at)
  redis.call('HDEL', KEYS[5], at)
  redis.call('ZREM', KEYS[6], mine .. key .. '\0' .. string.format('%016.0f', tonumber(position)))
  redis.call('ZREM', KEYS[9], group .. '\0' .. at)
end)
if ARGV[4] ~= '' then each(KEYS[18], mine, function(at, number)
  redis.call('HDEL', KEYS[18], at)
  redis.call('ZREM', KEYS[9], group .. '\0' .. mine .. 'replay\0' .. number)
end) end  -- else they were asked after it, and those before are gone
local first = math.huge  -- of what the log still has
local oldest = redis.call('XRANGE', KEYS[16], '-', '+', 'COUNT', 1)[1]
if oldest then
  local last, count = string.match(oldest[1], '^(%d+)-(%d+)$')
  first = tonumber(last) - tonumber(count) + 1
end
each(KEYS[13], partition .. '\0' .. mine, function(at, position)
  local id = redis.call('HGET', KEYS[13], at)
  redis.call('HDEL', KEYS[7], mine .. id)
  if tonumber(position) > tonumber(place) and tonumber(position) >= first then
    for key = 10, 12 do redis.call('HDEL', KEYS[key], id) end
    redis.call('HDEL', KEYS[13], at)
    redis.call('ZREM', KEYS[14], id)
  else
    redis.call('HSET', KEYS[12], id, 'parked')
  end
end)
redis.call('HSET', KEYS[3], name, 'new:' .. place)
redis.call('ZADD', KEYS[8], place, group .. '\0' .. name)
redis.call('HDEL', KEYS[15], name)
redis.call('ZREM', KEYS[9], group .. '\0' .. name .. '\0moved')
return place
