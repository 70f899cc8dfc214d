-- Register a group. The first write needs no memory, so that a full server runs the script, too.
-- KEYS: groups. ARGV: group.
redis.call('SREM', KEYS[1], '')
return redis.call('SADD', KEYS[1], ARGV[1])
