-- Write down that a subscription has halted, and why, in place of the mark that it is held.
-- KEYS: epochs, moves. ARGV: name, epoch, reason.
-- Where it is to stand elsewhere, the mark stays, for it goes on there. Returns 1, or 0 where the epoch is over.
local held = ARGV[1] .. '\0held'
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] or redis.call('HEXISTS', KEYS[1], held) == 0 then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then redis.call('HSET', KEYS[1], held, ARGV[3]) end
return 1
