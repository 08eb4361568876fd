-- What the scripts that end executions share.

-- Settles one execution that was taken: `settle(item)`, an item having at least id, execution and queue. If Redis refuses
-- a write of it (a key of the wrong type, say), the caller holds the execution again, and the reason is returned instead
-- of 1: the other outcomes of the batch are not touched by it.
local function settle_safely(settle, item, worker, now)
  local is_settled, problem = pcall(settle, item)
  if is_settled then return 1 end
  local reason = type(problem) == 'table' and problem.err or tostring(problem)
  if item.execution == '' then return reason end
  local composite = item.id .. ':' .. item.execution
  redis.call('HSET', job_key(item.id), 'status', 'started')
  redis.call('ZADD', started_key(item.queue), now + 180, composite)
  redis.call('SADD', held_key(worker), composite)
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
