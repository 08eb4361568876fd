-- Keeps a worker that hangs, and all that it holds, alive: its lease, and what RQ's readers go by. For its supervisor.
-- KEYS: leases, worker hash, worker's held set, worker's index of executions
-- ARGV: worker name, lease (ms), worker ttl (s), lifetime of a started entry (s), now (ISO)
-- Returns 1 if the worker has a lease, else 0; then nothing was written.
--- @include clock

local worker, worker_ttl, lifetime = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local now, exact = clock()
-- Removed before it is added: a write that frees memory goes first, so that this passes at maxmemory.
if redis.call('ZREM', KEYS[1], worker) == 0 then return 0 end
redis.call('ZADD', KEYS[1], exact * 1000 + tonumber(ARGV[2]), worker)
if redis.call('EXPIRE', KEYS[2], worker_ttl) == 1 then redis.call('HSET', KEYS[2], 'last_heartbeat', ARGV[5]) end
redis.call('EXPIRE', KEYS[4], math.max(worker_ttl, lifetime + 60))
for _, composite in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local id, execution = string.match(composite, '^(.*):([^:]*)$')
  local queue = redis.pcall('HGET', job_key(id), 'origin')
  if type(queue) == 'string' then redis.call('ZADD', started_key(queue), 'XX', now + lifetime, composite) end
  redis.call('EXPIRE', execution_key(composite), lifetime)
  redis.call('ZADD', executions_key(id), 'XX', now + lifetime + 60, execution)
  redis.call('EXPIRE', executions_key(id), lifetime + 60)
end
return 1
