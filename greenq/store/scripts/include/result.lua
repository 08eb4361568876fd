-- Adds a result to a job's stream; empty strings are left out, a ttl of -1 means forever.
local function add_result(id, kind, worker, value, exc_string, execution, started_at, ended_at, ttl)
  local key = results_key(id)
  if exc_string == '' and value ~= '' and execution ~= '' and started_at ~= '' then
    -- Nearly all: a success. Spelled out, as this is the hot path.
    redis.call('XADD', key, 'MAXLEN', '~', 10, '*', 'type', kind, 'worker_name', worker, 'return_value', value,
      'execution_id', execution, 'execution_started_at', started_at, 'execution_ended_at', ended_at)
  else
    local entry = { 'type', kind, 'worker_name', worker }
    local size = 4
    local optional = {
      'exc_string', exc_string, 'return_value', value, 'execution_id', execution,
      'execution_started_at', started_at, 'execution_ended_at', ended_at,
    }
    for i = 1, 10, 2 do
      if optional[i + 1] ~= '' then
        entry[size + 1], entry[size + 2] = optional[i], optional[i + 1]
        size = size + 2
      end
    end
    redis.call('XADD', key, 'MAXLEN', '~', 10, '*', unpack(entry))
  end
  if ttl > 0 then redis.call('EXPIRE', key, ttl) else redis.call('PERSIST', key) end
end

-- Leaves the enqueue token of a job that goes away for a minute, so that a repeat of the enqueue that is still on its
-- way does not bring the job back.
local function leave_token(id, token)
  if token and token ~= '' then redis.call('SET', tombstone_key(id), token, 'EX', 60) end
end

-- Deletes a job that is not to be kept.
local function forget_job(id)
  local job = redis.call('HMGET', job_key(id), 'greenq_token', 'group_id')
  redis.call('DEL', job_key(id), dependents_key(id), dependencies_key(id), results_key(id))
  leave_token(id, job[1])
  if job[2] and job[2] ~= '' then redis.call('SREM', group_key(job[2]), id) end
end

-- Sets when a job that has ended goes away; its sets of dependents go with it.
local function expire_job(id, ttl)
  if ttl <= 0 then return end
  if ttl < 60 then leave_token(id, redis.call('HGET', job_key(id), 'greenq_token')) end
  redis.call('EXPIRE', job_key(id), ttl)
  redis.call('EXPIRE', dependents_key(id), ttl)
  redis.call('EXPIRE', dependencies_key(id), ttl)
end
