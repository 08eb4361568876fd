-- What the scripts that end executions share.

-- Settles one execution that was taken. If Redis refuses a write of it (a key of the wrong type, say), the caller holds
-- the execution again, and the reason is returned instead of 1: the other outcomes of the batch are not touched by it.
local function settle_safely(settle, id, execution, queue, worker, now)
  local is_settled, problem = pcall(settle)
  if is_settled then return 1 end
  local reason = type(problem) == 'table' and problem.err or tostring(problem)
  if execution == '' then return reason end
  redis.call('HSET', job_key(id), 'status', 'started')
  redis.call('ZADD', started_key(queue), now + 180, id .. ':' .. execution)
  redis.call('SADD', held_key(worker), id .. ':' .. execution)
  return reason
end

-- Adds to the counters of a worker whose record exists, and sets its state unless that is ''.
local function note_outcomes(key, worker, counter, done, working_time, state)
  if worker == '' or redis.call('EXISTS', key) == 0 then return end
  if done > 0 then
    redis.call('HINCRBY', key, counter, done)
    redis.call('HINCRBYFLOAT', key, 'total_working_time', string.format('%.6f', working_time))
  end
  if state ~= '' then redis.call('HSET', key, 'state', state) end
end
