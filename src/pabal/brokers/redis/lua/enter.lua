-- Note that there is a group, also on a full server, which takes what follows a write that needs no memory.
-- KEYS: groups. ARGV: group.
redis.call('SREM', KEYS[1], '')
return redis.call('SADD', KEYS[1], ARGV[1])
