-- Write down that a subscription has halted, and why, in place of the mark that it is held.
-- KEYS: epochs, moves. ARGV: name, epoch, reason.
-- Returns 1, 2 where it is to stand elsewhere and so goes on, or 0 where the epoch is over.
local held = ARGV[1] .. '\0held'
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] or redis.call('HEXISTS', KEYS[1], held) == 0 then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then return 2 end
redis.call('HSET', KEYS[1], held, ARGV[3])
return 1
