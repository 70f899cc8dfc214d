-- Put back what was asked of a group and the server has forgotten; what was asked since then stands.
-- KEYS: controls. ARGV: the version that was known, then fields and values.
local version = tonumber(redis.call('HGET', KEYS[1], '\0version') or '0')
if version >= tonumber(ARGV[1]) then return 0 end
for index = 2, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[index], ARGV[index + 1]) end
redis.call('HSET', KEYS[1], '\0version', string.format('%.0f', tonumber(ARGV[1]) + 1))
return 1
