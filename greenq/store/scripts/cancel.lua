-- Cancels a job wherever it is; a running one keeps running, but its outcome will be dropped.
-- KEYS: job hash
-- ARGV: job id, now (ISO), enqueue dependents ('1' or '0'), remove from dependencies ('1' or '0')
-- Returns {previous status, flat list of queue, {ids of dependents enqueued}}; {} if there is no such job.
--- @include clock
--- @include registries
--- @include running
--- @include dependents

local id, iso = ARGV[1], ARGV[2]
local job = redis.call('HMGET', KEYS[1], 'status', 'origin', 'dependency_ids', 'rate_limit_key', 'greenq_execution')
local status, queue = job[1], job[2] or ''
if not status then return {} end
if status == 'canceled' then return { status, {} } end
local _, dependencies = pcall(cjson.decode, ARGV[4] == '1' and job[3] or '[]')
local now = clock()
redis.call('LREM', queue_key(queue), 1, id)
local was_running = take_all(id, queue, job[5])
leave_registry(id, status, queue)
for _, dependency in ipairs(type(dependencies) == 'table' and dependencies or {}) do
  redis.call('SREM', dependents_key(dependency), id)
end
redis.call('HSET', KEYS[1], 'status', 'canceled')
redis.call('ZADD', canceled_key(queue), now, id)
local released = {}
if ARGV[3] == '1' then released = release_dependents(id, '', id, now, iso) end
if job[4] and job[4] ~= '' then
  redis.call('ZREM', rate_limited_key(job[4]), id)
  if not was_running then free_slot(id, job[4], now, iso) end
end
return { status, flatten(released) }
