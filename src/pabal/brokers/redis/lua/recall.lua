-- Write again control requests that the server has forgotten; requests made since then take precedence.
-- KEYS: controls. ARGV: the version that the process knew, then fields and values.
-- Returns 1, or 0 if the server's version is not older.
local version = tonumber(redis.call('HGET', KEYS[1], '\0version') or '0')
if version >= tonumber(ARGV[1]) then return 0 end
for index = 2, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[index], ARGV[index + 1]) end
redis.call('HSET', KEYS[1], '\0version', string.format('%.0f', tonumber(ARGV[1]) + 1))
return 1
