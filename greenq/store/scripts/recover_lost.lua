-- Recovers what dead workers held: jobs of workers whose lease has ended return to the front of their queues.
-- KEYS: leases
-- ARGV: name of the worker that recovers ('' a supervisor, which adopts nothing), now (ISO), how many executions at
--       most, limit of interruptions in a row, the same for innocent ones, template of the reason of a poison job,
--       failure ttl (s), cause if none was reported, the only worker to recover ('' all; the caller itself: what a dead
--       namesake left to it), lease of a caller without one (ms)
-- Returns {{job id, execution id, queue, status, kind, cause}...}; status: queued, failed (poison), gone; or adopted for
-- a job that is to fail: its execution is then held by the caller, who has to end it. kind is then overdue or lost.
-- What a supervisor would have to adopt stays with the dead worker, for the next worker that looks.
--- @include clock
--- @include give_back
--- @include lease
--- @include unpark

local me, iso, budget = ARGV[1], ARGV[2], tonumber(ARGV[3])
local rules = {
  limit = tonumber(ARGV[4]), innocent_limit = tonumber(ARGV[5]), reason = ARGV[6], failure_ttl = tonumber(ARGV[7]),
}
local now, exact = clock()
local replies = {}

-- Who died, of what, and what is to become of its jobs.
local function certificate(worker)
  local fields = redis.call('HGETALL', member_key(worker))
  local dead = { culprit = '', verdict = '', cause = '', on_lost = 'requeue' }
  for i = 1, #fields, 2 do dead[fields[i]] = fields[i + 1] end
  dead.name = worker
  if dead.cause == '' then dead.cause = ARGV[8] end
  return dead
end

-- Why a job has to be failed, or retried, by whoever adopts it; nil if it is to be given back.
local function reason_to_adopt(dead, execution, queue, on_lost)
  if execution == dead.culprit and dead.verdict == 'overdue' then return 'overdue' end
  if not on_lost or on_lost == '' then on_lost = dead['on_lost:' .. queue] or dead.on_lost end
  return on_lost == 'fail' and 'lost' or nil
end

local function adopt(composite, dead)
  if dead.name == me then return end
  -- Removed before it is added, so that this passes at maxmemory.
  redis.call('SREM', held_key(dead.name), composite)
  redis.call('SREM', worker_executions_key(dead.name), composite)
  ensure_lease(me, tonumber(ARGV[10]), now)
  redis.call('SADD', held_key(me), composite)
end

local function return_to_queue(id, execution, queue, dead)
  take(id, execution, queue)
  drop(id, execution, dead.name)
  local is_blamed = execution == dead.culprit
  local cut = {
    worker = dead.name, execution = execution, cause = dead.cause,
    is_innocent = dead.culprit ~= '' and not is_blamed, is_suspect = is_blamed,
  }
  return give_back(id, queue, cut, rules, now, iso)
end

local function recover(composite, dead)
  local id, execution = string.match(composite, '^(.*):([^:]*)$')
  local job = redis.pcall('HMGET', job_key(id), 'origin', 'greenq_on_lost')
  local queue = job[1] or ''
  if not redis.call('ZSCORE', started_key(queue), composite) then
    drop(id, execution, dead.name)
    return
  end
  local status, kind = 'adopted', reason_to_adopt(dead, execution, queue, job[2])
  if not kind then
    status = return_to_queue(id, execution, queue, dead)
  elseif me == '' then
    return
  else
    adopt(composite, dead)
  end
  budget = budget - 1
  replies[#replies + 1] = { id, execution, queue, status, kind or '', dead.cause }
end

-- The latest first, as each goes to the front of its queue, so that in the end the oldest is foremost.
local function latest_first(composites)
  local since = {}
  for _, composite in ipairs(composites) do
    local enqueued_at = redis.pcall('HGET', job_key(string.match(composite, '^(.*):')), 'enqueued_at')
    since[composite] = type(enqueued_at) == 'string' and enqueued_at or ''
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
  if worker ~= me then unpark(worker) end
  local dead = certificate(worker)
  for _, composite in ipairs(latest_first(redis.call('SMEMBERS', held_key(worker)))) do
    if budget == 0 then return end
    recover(composite, dead)
  end
  if worker == me then
    redis.call('HDEL', member_key(me), 'culprit', 'verdict', 'cause')
  elseif redis.call('SCARD', held_key(worker)) == 0 then
    bury(worker)
  end
end

local function is_dead(worker)
  local lease = redis.call('ZSCORE', KEYS[1], worker)
  return not lease or tonumber(lease) <= exact * 1000
end

local only = ARGV[9]
if only ~= '' then
  if only == me or is_dead(only) then recover_worker(only) end
else
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', exact * 1000, 'LIMIT', 0, 10)) do
    if budget > 0 and worker ~= me then recover_worker(worker) end
  end
end
return replies
