-- Send a heartbeat, without looking at the group. KEYS: members. ARGV: member.
return redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
