--- @include submit
--- @include registries
--- @include dependents
--- @include execution
--- @include interruptions
--- @include result

local function fail_as_poison(id, queue, job, cut, rules, history, now, iso)
  local ttl = tonumber(job[3] or '') or rules.failure_ttl
  if ttl == 0 then ttl = 60 end
  redis.call('HSET', job_key(id), 'status', 'failed', 'ended_at', iso)
  -- What interrupted it may be its stream of results itself.
  pcall(add_result, id, 2, cut.worker, '', reason_of(rules.reason, history), cut.execution, '', '', ttl)
  redis.call('ZADD', failed_key(queue), ttl < 0 and ttl or now + ttl, id)
  expire_job(id, ttl)
  release_dependents(id, 'failed', '', now, iso)
  if job[4] and job[4] ~= '' then free_slot(id, job[4], now, iso) end
  return 'failed'
end

-- Returns a taken execution's job to the front of its queue. An interruption is noted on the job; too many in a row
-- fail it as poison. Returns the status that the job has then, or 'gone' if its hash is.
-- cut: worker, execution, cause, is_innocent (it counts by the larger limit), is_suspect.
-- rules: limit (0: the job never began, which is no interruption), innocent_limit, reason (template), failure_ttl.
local function give_back(id, queue, cut, rules, now, iso)
  -- A key that is no hash counts as a missing job, as in a claim: it must not keep the others from being recovered.
  local job = redis.pcall('HMGET', job_key(id), 'status', 'greenq_interruptions', 'failure_ttl', 'rate_limit_key')
  if job.err or not job[1] then return 'gone' end
  -- Submitted anew while it ran. The status alone proves nothing: a producer's Job.save() may have written an old one.
  if job[1] ~= 'started' and is_in_place(id, job[1], queue) then return job[1] end
  if rules.limit > 0 then
    local history = interruptions_of(job[2])
    -- It was failed for these already, and requeued by somebody who does not know of them, such as RQ.
    if is_too_many(history, rules.limit, rules.innocent_limit) then history = {} end
    history[#history + 1] = {
      at = iso, worker = cut.worker, execution = cut.execution, cause = cut.cause, innocent = cut.is_innocent or nil,
    }
    redis.call('HSET', job_key(id), 'greenq_interruptions', cjson.encode(history))
    if is_too_many(history, rules.limit, rules.innocent_limit) then
      return fail_as_poison(id, queue, job, cut, rules, history, now, iso)
    end
  end
  redis.call('HSET', job_key(id), 'status', 'queued', 'started_at', '', 'worker_name', '', 'last_heartbeat', '')
  redis.call('SADD', queues_key(), queue_key(queue))
  -- What is believed to have killed its worker goes last: at the front it would be claimed again together with its
  -- neighbours, which also return there, and take them along with it once more.
  redis.call(cut.is_suspect and 'RPUSH' or 'LPUSH', queue_key(queue), id)
  return 'queued'
end
