-- Pause a subscription, or resume it, also where it has halted; owners of partitions notice the new version.
-- KEYS: names, controls, then the epochs of each partition. ARGV: name, '1' to pause or '0' to resume.
-- Returns 1, 0 if nothing changed, or -1 if the subscription is unknown.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return -1 end
local changed = 0
if (redis.call('HGET', KEYS[2], ARGV[1]) or '0') ~= ARGV[2] then
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
  changed = 1
end
if ARGV[2] == '0' then
  local held = ARGV[1] .. '\0held'
  for part = 3, #KEYS do
    if (redis.call('HGET', KEYS[part], held) or '1') ~= '1' then
      redis.call('HSET', KEYS[part], held, '1')
      changed = 1
    end
  end
end
if changed == 1 then redis.call('HINCRBY', KEYS[2], '\0version', 1) end
return changed
