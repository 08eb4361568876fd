--- @include submit
--- @include registries
--- @include dependents
--- @include execution
--- @include result

-- Returns a taken execution's job to the front of its queue. An interruption is noted on the job; the last one of
-- `limit` in a row fails it as poison, with exc_string as its reason. limit 0 means that the job never began, which
-- is no interruption. Returns the status that the job has then, or 'gone' if its hash is.
local function give_back(id, queue, worker, limit, exc_string, execution, failure_ttl, now, iso)
  local job = redis.call('HMGET', job_key(id), 'status', 'greenq_interruptions', 'failure_ttl', 'rate_limit_key')
  if not job[1] then return 'gone' end
  -- Submitted anew while it ran. The status alone proves nothing: a producer's Job.save() may have written an old one.
  if job[1] ~= 'started' and is_in_place(id, job[1], queue) then return job[1] end
  if limit > 0 then
    local history = job[2] and cjson.decode(job[2]) or {}
    history[#history + 1] = { at = iso, worker = worker, execution = execution }
    redis.call('HSET', job_key(id), 'greenq_interruptions', cjson.encode(history))
    if #history >= limit then
      local ttl = tonumber(job[3] or '') or failure_ttl
      if ttl == 0 then ttl = 60 end
      redis.call('HSET', job_key(id), 'status', 'failed', 'ended_at', iso)
      -- What interrupted it may be its stream of results itself.
      pcall(add_result, id, 2, worker, '', exc_string, execution, '', '', ttl)
      redis.call('ZADD', failed_key(queue), ttl < 0 and ttl or now + ttl, id)
      expire_job(id, ttl)
      release_dependents(id, 'failed', '', now, iso)
      if job[4] and job[4] ~= '' then free_slot(id, job[4], now, iso) end
      return 'failed'
    end
  end
  redis.call('HSET', job_key(id), 'status', 'queued', 'started_at', '', 'worker_name', '', 'last_heartbeat', '')
  redis.call('LPUSH', queue_key(queue), id)
  return 'queued'
end
