-- Begins an execution of a job. The caller adds the composite key to the started registry and to the worker's sets.
-- The hash names the execution, so that a cancel finds it before it has a record. `may_expire`: it may have a TTL.
local function start_job(id, execution, worker, iso, may_expire)
  redis.call('HSET', job_key(id), 'status', 'started', 'started_at', iso, 'last_heartbeat', iso, 'worker_name', worker,
    'greenq_execution', execution)
  if may_expire then redis.call('PERSIST', job_key(id)) end
  return id .. ':' .. execution
end
