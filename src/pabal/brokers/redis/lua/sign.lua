-- Give a sign of life without a look. KEYS: members. ARGV: member.
return redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
