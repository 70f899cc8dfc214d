-- Move a subscription's cursor in one partition, unless the subscription is held in another epoch.
-- Retries, replays and queued positions are deleted, and so are dead letters whose events will be delivered again;
-- other dead letters stay, and no longer block their keys.
-- KEYS: lease, epochs, cursors, retries, queued, queue, blocking, watermarks, held positions, letters, letter
-- rows, letter states, letter index, letter ids, moves, log, the partition's hash, replays.
-- ARGV: group, partition, name, a position, 'now', or '' for the requested move, the epoch ('' for none).
-- Returns the new position, '' if no move is requested (any more), or -1 if another epoch holds the subscription.
local group, partition, name, place = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if place == '' then place = redis.call('HGET', KEYS[15], name) end
if not place then return '' end
local owner = redis.call('HGET', KEYS[1], 'owner') or ''
if owner ~= '' and redis.call('HEXISTS', KEYS[2], name .. '\0held') == 1
  and redis.call('HGET', KEYS[2], name) ~= ARGV[5] then return -1 end
local head = redis.call('HGET', KEYS[17], 'head') or '0'
local skips = string.match(place, '^now:(%d+)$')
if skips then
  -- The holder handled events until it noticed the request: do not deliver again what it has finished since.
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
end) end  -- replays that remain at a requested move were requested after it: `reset` deleted the earlier ones
local first = math.huge  -- the first position still in the log
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
