-- Save progress of subscriptions in one partition, each only while its epoch lasts.
-- KEYS: lease, epochs, cursors, retries, queued, queue, blocking, watermarks, held positions, letters, letter
-- rows, letter states, letter index, letter ids, letter counter, replays.
-- ARGV: owner, group, partition, then operations: a letter and its arguments.
--   C name epoch cursor watermark   set a subscription's cursor; the operations that follow belong to it
--   X position                      finished: delete its retry, queue entry and dead letter being retried
--   R position retry                store a retry
--   Q position key                  put a position into the queue behind a key
--   A number watermark              advance a replay; delete it if it is at its end
--   P position letter row key       park: store a dead letter; key '' if it blocks none
-- Returns the names of subscriptions whose epoch is over; {'\0gone'} if the server has forgotten the lease.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'\0gone'} end
local mine = redis.call('HGET', KEYS[1], 'owner') == ARGV[1]
local group, partition = ARGV[2], ARGV[3]
local lost = {}
local name, ok = '', false
local function field(position) return name .. '\0' .. position end
local function forget(position)
  local at = field(position)
  redis.call('HDEL', KEYS[4], at)
  local key = redis.call('HGET', KEYS[5], at)
  if key then
    redis.call('HDEL', KEYS[5], at)
    redis.call('ZREM', KEYS[6], name .. '\0' .. key .. '\0' .. string.format('%016.0f', tonumber(position)))
    redis.call('ZREM', KEYS[9], group .. '\0' .. at)
  end
end
local i = 4
while i <= #ARGV do
  local op = ARGV[i]
  if op == 'C' then
    name = ARGV[i + 1]
    ok = mine and redis.call('HGET', KEYS[2], name) == ARGV[i + 2]
    if ok then
      redis.call('HSET', KEYS[3], name, ARGV[i + 3])
      redis.call('ZADD', KEYS[8], ARGV[i + 4], group .. '\0' .. name)
    else
      lost[#lost + 1] = name
    end
    i = i + 5
  elseif op == 'X' then
    if ok then
      forget(ARGV[i + 1])
      local index = partition .. '\0' .. field(ARGV[i + 1])
      local id = redis.call('HGET', KEYS[13], index)
      if id and redis.call('HGET', KEYS[12], id) == 'retrying' then
        for _, key in ipairs({10, 11, 12}) do redis.call('HDEL', KEYS[key], id) end
        redis.call('HDEL', KEYS[13], index)
        redis.call('ZREM', KEYS[14], id)
        redis.call('HDEL', KEYS[7], name .. '\0' .. id)
      end
    end
    i = i + 2
  elseif op == 'R' then
    if ok then redis.call('HSET', KEYS[4], field(ARGV[i + 1]), ARGV[i + 2]) end
    i = i + 3
  elseif op == 'Q' then
    if ok then
      local position, key = ARGV[i + 1], ARGV[i + 2]
      redis.call('HSET', KEYS[5], field(position), key)
      redis.call('ZADD', KEYS[6], 0, name .. '\0' .. key .. '\0' .. string.format('%016.0f', tonumber(position)))
      redis.call('ZADD', KEYS[9], position, group .. '\0' .. field(position))
    end
    i = i + 3
  elseif op == 'A' then
    local known = ok and redis.call('HGET', KEYS[16], field(ARGV[i + 1]))
    if known then
      local range, last = string.match(known, '^(%d+:(%d+):)')
      local mark, held = tonumber(ARGV[i + 2]), group .. '\0' .. name .. '\0replay\0' .. ARGV[i + 1]
      if mark >= tonumber(last) then
        redis.call('HDEL', KEYS[16], field(ARGV[i + 1]))
        redis.call('ZREM', KEYS[9], held)
      else
        redis.call('HSET', KEYS[16], field(ARGV[i + 1]), range .. ARGV[i + 2])
        redis.call('ZADD', KEYS[9], string.format('%.0f', mark + 1), held)
      end
    end
    i = i + 3
  else
    if ok then
      local position, key = ARGV[i + 1], ARGV[i + 4]
      local index = partition .. '\0' .. field(position)
      local id = redis.call('HGET', KEYS[13], index)
      if not id then
        id = string.format('%.0f', redis.call('INCR', KEYS[15]))
        redis.call('HSET', KEYS[13], index, id)
        redis.call('ZADD', KEYS[14], id, id)
        redis.call('HSET', KEYS[11], id, ARGV[i + 3])
      end
      redis.call('HSET', KEYS[10], id, ARGV[i + 2])
      redis.call('HSET', KEYS[12], id, 'parked')
      if key ~= '' then redis.call('HSET', KEYS[7], name .. '\0' .. id, key) end
      forget(position)
    end
    i = i + 5
  end
end
return lost
