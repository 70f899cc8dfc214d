-- Send a heartbeat, and return the state of the group.
-- KEYS: members, meta, schedule, letter ids, controls, groups, then each partition's lease and calls.
-- ARGV: member, token, group.
-- Returns 1 if the token is that of the log, else 0; when the next scheduled event is due; the number of dead
-- letters; the members and their heartbeats; for each partition its owner, epoch and number of calls; and the
-- version of the group's control requests.
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('SADD', KEYS[6], ARGV[3])  -- the server may have forgotten the group
local same = redis.call('HGET', KEYS[2], 'token') == ARGV[2] and 1 or 0
local due = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2] or ''
local leases = {}
for part = 7, #KEYS, 2 do
  local lease = redis.call('HMGET', KEYS[part], 'owner', 'epoch')
  leases[#leases + 1] = lease[1] or ''
  leases[#leases + 1] = lease[2] or ''
  leases[#leases + 1] = redis.call('SCARD', KEYS[part + 1])
end
local version = redis.call('HGET', KEYS[5], '\0version') or '0'
return {same, due, redis.call('ZCARD', KEYS[4]), redis.call('HGETALL', KEYS[1]), leases, version}
