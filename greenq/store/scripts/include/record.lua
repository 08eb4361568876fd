-- Writes RQ's record of an execution, or extends it: its hash, and its place among the executions of its job.
local function record_execution(id, execution, worker, created_at, epoch, now, lifetime)
  local key = execution_key(id .. ':' .. execution)
  redis.call('HSET', key, 'id', execution, 'job_id', id, 'created_at', created_at, 'last_heartbeat', epoch,
    'worker_name', worker)
  redis.call('EXPIRE', key, lifetime)
  redis.call('ZADD', executions_key(id), now + lifetime + 60, execution)
  redis.call('EXPIRE', executions_key(id), lifetime + 60)
end
