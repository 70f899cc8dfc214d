-- Record why a subscription has halted, in place of the mark that it is held.
-- KEYS: epochs, moves. ARGV: name, epoch, reason.
-- If a reset is requested, the mark stays, because the reset ends the halt.
-- Returns 1, or 0 if the epoch is over.
local held = ARGV[1] .. '\0held'
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] or redis.call('HEXISTS', KEYS[1], held) == 0 then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then redis.call('HSET', KEYS[1], held, ARGV[3]) end
return 1
