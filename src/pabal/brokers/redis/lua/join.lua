-- Make the log, or join the one there is. What a server forgot must never be mistaken for what it has:
-- each time it may have forgotten something (it restarted, or everything was flushed), positions go on far
-- above any that was ever given, in a new *incarnation* of the log, 2^32 positions above the one before.
-- KEYS: meta, then the partitions' hashes. ARGV: partitions wanted (0: as there are), the server's run id,
-- a nonce, the incarnation and the token this process knew last (-1 and '' for none), how many partitions a
-- new log gets, what the names of their hashes begin with.
local meta = KEYS[1]
local wanted, run, nonce = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local known, token = tonumber(ARGV[4]), ARGV[5]
local found = redis.call('HMGET', meta, 'partitions', 'incarnation', 'token', 'run')

local function raise(count, incarnation)
  local head = string.format('%.0f', incarnation * 4294967296)
  for index = 0, count - 1 do
    local key = ARGV[7] .. index
    local before = redis.call('HGET', key, 'head') or '0'
    redis.call('HSET', key, 'head', head, 'jump:' .. head, before)
  end
end

if not found[1] then
  local count = tonumber(ARGV[6])
  local incarnation = known + 1
  token = incarnation .. ':' .. nonce
  redis.call('HSET', meta, 'partitions', count, 'incarnation', incarnation, 'token', token, 'run', run)
  if incarnation > 0 then raise(count, incarnation) end
  return {'made', count, incarnation, token}
end
local count, incarnation = tonumber(found[1]), tonumber(found[2])
if wanted > 0 and wanted ~= count then
  return {'mismatch', count, incarnation, found[3]}
end
-- Another server process than the log was last used on, or a log made by somebody who knew nothing of ours.
if found[4] ~= run or (known >= incarnation and token ~= found[3]) then
  incarnation = math.max(incarnation, known) + 1
  token = incarnation .. ':' .. nonce
  redis.call('HSET', meta, 'incarnation', incarnation, 'token', token, 'run', run)
  raise(count, incarnation)
  return {'raised', count, incarnation, token}
end
return {'joined', count, incarnation, found[3]}
