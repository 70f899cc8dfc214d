-- Measure partitions without changing anything; only positions are returned, not events.
-- KEYS: for each partition its log and its hash. ARGV: a time in microseconds, or '' for none.
-- Returns for each partition its hash, the first position still stored (0: none), and the position below the
-- first entry recorded at or after the time ('': every entry is older, or no time was given).
local answer = {}
local function first_of(entry)
  local last, count = string.match(entry[1], '^(%d+)-(%d+)$')
  return tonumber(last) - tonumber(count) + 1, tonumber(last)
end
local function recorded(entry)
  for index = 1, #entry[2], 2 do
    if entry[2][index] == 't' then return tonumber(entry[2][index + 1]) end
  end
  return 0
end
local since = tonumber(ARGV[1])
for part = 1, #KEYS, 2 do
  local log = KEYS[part]
  local begin, below = 0, ''
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  if oldest then
    begin = first_of(oldest)
    local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
    if since and recorded(newest) >= since then
      -- The newest entry is recent enough, so binary search finds the first one that is.
      local low = begin
      local _, high = first_of(newest)
      while low < high do
        local middle = math.floor((low + high) / 2)
        local entry = redis.call('XRANGE', log, string.format('%.0f-0', middle), '+', 'COUNT', 1)[1]
        local _, last = first_of(entry)
        if recorded(entry) >= since then high = middle else low = last + 1 end
      end
      local entry = redis.call('XRANGE', log, string.format('%.0f-0', low), '+', 'COUNT', 1)[1]
      below = string.format('%.0f', first_of(entry) - 1)
    end
  end
  answer[#answer + 1] = redis.call('HGETALL', KEYS[part + 1])
  answer[#answer + 1] = string.format('%.0f', begin)
  answer[#answer + 1] = below
end
return answer
