-- Append to several partitions at once: everything, or nothing if any event is already stored.
-- KEYS: meta, then for each partition its log, its hash, and its recent and older event ids.
-- ARGV: token, generation size, then for each partition the number of events, their ids (16 bytes each), their
-- marks (8 bytes each: fingerprint, number of later events in the entry) and the encoded entry.
-- For each id the server remembers its mark and the last position of its entry; that position is the same for the
-- whole entry, so no number has to be formatted for each event.
-- Returns {1, first position in each partition}, {0, partition index, event index, remembered value, ...} if
-- events are already stored, or {-1} if the token is not that of the log.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return {-1} end
local generation = tonumber(ARGV[2])
local parts = (#KEYS - 1) / 4
local split, known = {}, {0}
for part = 1, parts do
  local at = 4 * part - 2
  local count, ids = tonumber(ARGV[4 * part - 1]), ARGV[4 * part]
  local fields = {}
  for index = 1, count do fields[index] = string.sub(ids, 16 * index - 15, 16 * index) end
  split[part] = fields
  for first = 1, count, 1000 do
    local last = math.min(first + 999, count)
    for which = 2, 3 do
      local found = redis.call('HMGET', KEYS[at + which], unpack(fields, first, last))
      for index = 1, #found do
        if found[index] then
          known[#known + 1] = part - 1
          known[#known + 1] = first + index - 2
          known[#known + 1] = found[index]
        end
      end
    end
  end
end
if #known > 1 then return known end

local now = redis.call('TIME')
local stamp = now[1] .. string.format('%06d', now[2])
local answer = {1}
for part = 1, parts do
  local at = 4 * part - 2
  local count, marks = tonumber(ARGV[4 * part - 1]), ARGV[4 * part + 1]
  local head = redis.call('HINCRBY', KEYS[at + 1], 'head', count)
  local last = string.format('%.0f', head)
  redis.call('XADD', KEYS[at], last .. '-' .. count, 't', stamp, 'e', ARGV[4 * part + 2])
  answer[#answer + 1] = head - count + 1
  local pairs_, size = {}, 0
  for index = 1, count do
    pairs_[size + 1] = split[part][index]
    pairs_[size + 2] = string.sub(marks, 8 * index - 7, 8 * index) .. last
    size = size + 2
    if size == 2000 or index == count then
      redis.call('HSET', KEYS[at + 2], unpack(pairs_, 1, size))
      size = 0
    end
  end
  if redis.call('HLEN', KEYS[at + 2]) >= generation then
    redis.call('UNLINK', KEYS[at + 3])
    redis.call('RENAME', KEYS[at + 2], KEYS[at + 3])
  end
end
return answer
