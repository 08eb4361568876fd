-- Recovers what dead workers held: jobs of workers whose lease has ended return to the front of their queues.
-- KEYS: leases
-- ARGV: name of the worker that recovers, now (ISO), how many executions at most, limit of interruptions in a row,
--       reason of a poison job (encoded), failure ttl (s), one worker to recover although its lease runs ('' none), lease of a caller without
--       one (ms)
-- Returns {{job id, execution id, queue, status}...}: queued, failed (poison), gone; or adopted for a job whose worker
-- asked to fail what it loses: its execution is then held by the caller, who has to end it.
--- @include clock
--- @include give_back
--- @include lease
--- @include unpark

local me, iso, budget, limit, reason, failure_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local now, exact = clock()
local replies = {}

local function adopt(id, execution, worker)
  local composite = id .. ':' .. execution
  ensure_lease(me, tonumber(ARGV[8]), now)
  redis.call('SADD', held_key(me), composite)
  redis.call('SREM', held_key(worker), composite)
  redis.call('SREM', worker_executions_key(worker), composite)
  return 'adopted'
end

local function recover(worker, composite, on_lost)
  local id, execution = string.match(composite, '^(.*):([^:]*)$')
  local job = redis.call('HMGET', job_key(id), 'origin', 'greenq_on_lost')
  local queue = job[1] or ''
  on_lost = job[2] or on_lost
  if not redis.call('ZSCORE', started_key(queue), composite) then
    drop(id, execution, worker)
    return
  end
  local status
  if on_lost == 'fail' then
    status = adopt(id, execution, worker)
  else
    take(id, execution, queue)
    drop(id, execution, worker)
    status = give_back(id, queue, worker, limit, reason, execution, failure_ttl, now, iso)
  end
  replies[#replies + 1] = { id, execution, queue, status }
end

-- The latest first, as each goes to the front of its queue, so that in the end the oldest is foremost.
local function latest_first(composites)
  local since = {}
  for _, composite in ipairs(composites) do
    since[composite] = redis.call('HGET', job_key(string.match(composite, '^(.*):')), 'enqueued_at') or ''
  end
  table.sort(composites, function(a, b)
    if since[a] ~= since[b] then return since[a] > since[b] end
    return a > b
  end)
  return composites
end

local function bury(worker)
  redis.call('ZREM', KEYS[1], worker)
  redis.call('DEL', member_key(worker), held_key(worker), worker_executions_key(worker))
  redis.call('SREM', workers_key(), worker_key(worker))
  local queues = redis.call('HGET', worker_key(worker), 'queues')
  for queue in string.gmatch(queues or '', '[^,]+') do redis.call('SREM', queue_workers_key(queue), worker_key(worker)) end
  redis.call('DEL', worker_key(worker))
end

local function recover_worker(worker)
  if worker == me then return end
  unpark(worker)
  local on_lost = redis.call('HGET', member_key(worker), 'on_lost') or 'requeue'
  for _, composite in ipairs(latest_first(redis.call('SMEMBERS', held_key(worker)))) do
    if budget == 0 then return end
    recover(worker, composite, on_lost)
    budget = budget - 1
  end
  if redis.call('SCARD', held_key(worker)) == 0 then bury(worker) end
end

if ARGV[7] ~= '' then
  recover_worker(ARGV[7])
else
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', exact * 1000, 'LIMIT', 0, 10)) do
    if budget > 0 then recover_worker(worker) end
  end
end
return replies
