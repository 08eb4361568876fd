-- Begins an execution of a job: its status, its record, and its id among the job's executions. The caller adds the
-- composite key to the started registry and to the worker's sets.
local function start_job(id, execution, worker, iso, epoch, now, lifetime)
  local composite = id .. ':' .. execution
  redis.call('HSET', job_key(id), 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', worker)
  redis.call('PERSIST', job_key(id))
  redis.call('HSET', execution_key(composite), 'id', execution, 'job_id', id, 'created_at', epoch,
    'last_heartbeat', epoch, 'worker_name', worker)
  redis.call('EXPIRE', execution_key(composite), lifetime)
  redis.call('ZADD', executions_key(id), now + lifetime + 60, execution)
  redis.call('EXPIRE', executions_key(id), lifetime + 60)
  return composite
end
