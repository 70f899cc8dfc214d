-- Append to several partitions at once: everything, or nothing if any event is already stored.
-- KEYS: meta, then for each partition its log, its hash, and its recent and older event ids.
-- ARGV: token, generation size, then for each partition the number of events, their ids (16 bytes each), their
-- marks (9 bytes each: last byte of the id, fingerprint, number of later events in the entry) and the encoded entry.
-- Returns {1, first position in each partition}, {0, partition index, event index, what is known of it, ...} if
-- events are already stored, or {-1} if the token is not that of the log.
--
-- Ids are remembered by their first 15 bytes, because those made in one burst differ in the last byte only: one field
-- of a hash then stands for up to 256 of them, which takes a third of the time of a field for each. Its value holds
-- for each entry the number of its ids that begin so, the entry's last position, and their marks. The field '' of the
-- hash counts the ids.
if redis.call('HGET', KEYS[1], 'token') ~= ARGV[1] then return {-1} end
local sub, byte, pack = string.sub, string.byte, struct.pack
local HEADER, MARK = '<Hd', 9
local generation = tonumber(ARGV[2])
local parts = (#KEYS - 1) / 4

-- Group the ids of one partition: the first 15 bytes of each run of ids that have the same, and where it begins.
local function find_runs(ids, count)
  local heads, begins, total = {}, {}, 0
  local head
  for index = 1, count do
    local own = sub(ids, 16 * index - 15, 16 * index - 1)
    if own ~= head then
      head = own
      total = total + 1
      heads[total], begins[total] = own, index
    end
  end
  heads[total + 1], begins[total + 1] = '', count + 1
  return heads, begins, total
end

-- Return the values of some fields, for several hundred at once: a call takes a limited number of arguments.
local function read_fields(key, fields, total)
  if total <= 1000 then return redis.call('HMGET', key, unpack(fields, 1, total)) end
  local values = {}
  for first = 1, total, 1000 do
    local last = math.min(first + 999, total)
    local found = redis.call('HMGET', key, unpack(fields, first, last))
    for index = first, last do values[index] = found[index - first + 1] end
  end
  return values
end

-- Add to `known` which ids from index `begin` to `last` are among those of a field with their first 15 bytes.
local function find_known(known, value, ids, part, begin, last)
  local wanted, place = {}, 1
  for index = begin, last do wanted[byte(ids, 16 * index)] = index end
  while place < #value do
    local size = struct.unpack(HEADER, value, place)
    local after = place + 10 + MARK * size
    for mark = place + 10, after - MARK, MARK do
      local index = wanted[byte(value, mark)]
      if index then
        known[#known + 1] = part - 1
        known[#known + 1] = index - 1
        known[#known + 1] = sub(value, mark + 1, mark + 8) .. sub(value, place + 2, place + 9)
      end
    end
    place = after
  end
end

local batches, known = {}, {0}
for part = 1, parts do
  local at = 4 * part - 2
  local ids = ARGV[4 * part]
  local heads, begins, total = find_runs(ids, tonumber(ARGV[4 * part - 1]))
  local recent = read_fields(KEYS[at + 2], heads, total + 1)
  local older = read_fields(KEYS[at + 3], heads, total)
  for number = 1, total do
    local begin, last = begins[number], begins[number + 1] - 1
    if recent[number] then find_known(known, recent[number], ids, part, begin, last) end
    if older[number] then find_known(known, older[number], ids, part, begin, last) end
  end
  batches[part] = {heads, begins, total, recent}
end
if #known > 1 then return known end

local now = redis.call('TIME')
local stamp = now[1] .. string.format('%06d', now[2])
local answer = {1}
for part = 1, parts do
  local at = 4 * part - 2
  local count, marks = tonumber(ARGV[4 * part - 1]), ARGV[4 * part + 1]
  local head = redis.call('HINCRBY', KEYS[at + 1], 'head', count)
  redis.call('XADD', KEYS[at], string.format('%.0f', head) .. '-' .. count, 't', stamp, 'e', ARGV[4 * part + 2])
  answer[#answer + 1] = head - count + 1
  local heads, begins, total, recent = unpack(batches[part])
  local alone = pack(HEADER, 1, head)
  local values, fields, size = {}, {}, 0
  for number = 1, total do
    local field, begin, after = heads[number], begins[number], begins[number + 1]
    local header = after - begin == 1 and alone or pack(HEADER, after - begin, head)
    local value = header .. sub(marks, MARK * begin - 8, MARK * after - 9)
    local before = values[field] or recent[number]  -- ids that begin so need not all be in one run
    if before then value = before .. value end
    values[field] = value
    fields[size + 1], fields[size + 2] = field, value
    size = size + 2
    if size == 2000 then
      redis.call('HSET', KEYS[at + 2], unpack(fields, 1, size))
      size = 0
    end
  end
  local remembered = count + (tonumber(recent[total + 1]) or 0)
  fields[size + 1], fields[size + 2] = '', remembered
  redis.call('HSET', KEYS[at + 2], unpack(fields, 1, size + 2))
  if remembered >= generation then
    redis.call('UNLINK', KEYS[at + 3])
    redis.call('RENAME', KEYS[at + 2], KEYS[at + 3])
  end
end
return answer
