-- Deletes a job, its results and its places in queue and registries; a running one keeps running, but its outcome
-- will be dropped.
-- KEYS: job hash
-- ARGV: job id, now (ISO), remove from queue ('1' or '0'), delete dependents too ('1' or '0')
-- Returns 1 if the job existed, else 0.
--- @include clock
--- @include registries
--- @include running
--- @include result
--- @include rate

local iso = ARGV[2]
local now = clock()

local function delete(id, from_queue)
  local job = redis.call('HMGET', job_key(id), 'status', 'origin', 'group_id', 'rate_limit_key', 'greenq_execution')
  local queue = job[2] or ''
  if from_queue then redis.call('LREM', queue_key(queue), 1, id) end
  local was_running, executions = take_all(id, queue, job[5])
  if not job[4] then
    for _, execution in ipairs(executions) do redis.call('DEL', execution_key(id .. ':' .. execution)) end
  end
  if not job[4] then redis.call('DEL', executions_key(id)) end
  if job[1] then leave_registry(id, job[1], queue) end
  forget_job(id)
  if job[4] and job[4] ~= '' then
    redis.call('ZREM', rate_limited_key(job[4]), id)
    if not was_running then free_slot(id, job[4], now, iso) end
  end
  return job[1] and 1 or 0
end

local id = ARGV[1]
if ARGV[4] == '1' then
  for _, dependent in ipairs(redis.call('SMEMBERS', dependents_key(id))) do delete(dependent, false) end
end
return delete(id, ARGV[3] == '1')
