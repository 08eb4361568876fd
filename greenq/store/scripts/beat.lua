-- Extends a worker's lease, and RQ's records of it and of the executions named.
-- KEYS: worker hash, member hash, leases, worker's index of executions
-- ARGV: worker name, token, lease (ms), worker ttl (s), now (ISO), now (epoch), lifetime of a started entry (s); then
--       for each execution: job id, execution id, queue, begun (epoch)
-- Returns {verdict, composite keys that are no longer the worker's...}; the verdict is ok, missing (the record was
-- lost: join again), or superseded (another incarnation has the name).
--- @include clock
--- @include record

local worker, token, lease, iso, epoch = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[5], ARGV[6]
local lifetime = tonumber(ARGV[7])
local now, exact = clock()
local holder = redis.call('HGET', KEYS[2], 'token')
if not holder or redis.call('EXISTS', KEYS[1]) == 0 then
  if holder and holder ~= token then return { 'superseded' } end
  return { 'missing' }
end
if holder ~= token then return { 'superseded' } end
-- First of the writes because it needs no memory: a server at maxmemory then lets the others pass too.
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[4]))
redis.call('ZADD', KEYS[3], exact * 1000 + lease, worker)
redis.call('HSET', KEYS[1], 'last_heartbeat', iso)
local reply = { 'ok' }
for at = 8, #ARGV, 4 do
  local id, execution, queue = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local composite = id .. ':' .. execution
  if redis.call('ZSCORE', started_key(queue), composite) then
    redis.call('ZADD', started_key(queue), 'XX', now + lifetime, composite)
    record_execution(id, execution, worker, ARGV[at + 3], epoch, now, lifetime)
    redis.call('SADD', KEYS[4], composite)
    if redis.call('EXISTS', job_key(id)) == 1 then redis.call('HSET', job_key(id), 'last_heartbeat', iso) end
  else
    redis.call('SREM', held_key(worker), composite)
    redis.call('SREM', KEYS[4], composite)
    reply[#reply + 1] = composite
  end
end
redis.call('EXPIRE', KEYS[4], math.max(tonumber(ARGV[4]), lifetime + 60))
return reply
