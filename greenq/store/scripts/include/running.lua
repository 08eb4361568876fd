-- Takes every execution of a job from its worker, as far as there is one; returns whether there was.
local function take_all(id, queue, latest)
  local executions = redis.call('ZRANGE', executions_key(id), 0, -1)
  -- The latest one may not have its record yet.
  if latest and latest ~= '' then executions[#executions + 1] = latest end
  local was_running = false
  for _, execution in ipairs(executions) do
    was_running = redis.call('ZREM', started_key(queue), id .. ':' .. execution) == 1 or was_running
  end
  return was_running, executions
end
