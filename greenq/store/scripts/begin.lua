-- Begins an execution of one job that the caller already has in hand, without taking it from a queue.
-- KEYS: job hash, worker hash
-- ARGV: worker name, now (ISO), now (epoch), lifetime of the started entry (s), job id, execution id, queue,
--       lease of a worker without one (ms)
-- Returns 1.
--- @include clock
--- @include start
--- @include record
--- @include lease

local worker, id, queue = ARGV[1], ARGV[5], ARGV[7]
local lifetime = tonumber(ARGV[4])
local now = clock()
-- First because it frees memory: the rest then passes at maxmemory.
redis.call('LREM', intermediate_key(queue), 1, id)
local composite = start_job(id, ARGV[6], worker, ARGV[2], true)
record_execution(id, ARGV[6], worker, ARGV[3], ARGV[3], now, lifetime)
redis.call('ZADD', started_key(queue), now + lifetime, composite)
ensure_lease(worker, tonumber(ARGV[8]), now)
redis.call('SADD', held_key(worker), composite)
redis.call('SADD', worker_executions_key(worker), composite)
redis.call('EXPIRE', worker_executions_key(worker), lifetime + 60)
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('HSET', KEYS[2], 'state', 'busy') end
return 1
