-- Create the log, or join the existing one. A position must never be assigned twice. Whenever the server may
-- have forgotten events (it restarted, or was flushed), positions therefore continue in a new *incarnation* of
-- the log, which begins 2^32 positions above the previous one, far above any position ever assigned.
-- KEYS: meta, then the partitions' hashes.
-- ARGV: number of partitions wanted (0: whatever the log has), the server's run id, a nonce, the incarnation and
-- the token this process knew last (-1 and '' for none), the number of partitions of a new log, the prefix of
-- the keys of the partitions' hashes.
-- Returns what was done ('made', 'joined', 'raised' or 'mismatch'), the number of partitions, the incarnation and
-- the token.
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
-- The server has restarted since the log was last used, or the log was created by a process that did not know
-- this incarnation.
if found[4] ~= run or (known >= incarnation and token ~= found[3]) then
  incarnation = math.max(incarnation, known) + 1
  token = incarnation .. ':' .. nonce
  redis.call('HSET', meta, 'incarnation', incarnation, 'token', token, 'run', run)
  raise(count, incarnation)
  return {'raised', count, incarnation, token}
end
return {'joined', count, incarnation, found[3]}
