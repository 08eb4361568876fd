-- The fence and the end of an execution.

-- Whether the caller still owns the execution: it is in the started registry, from which every other party that
-- takes it over (a reaper, a cancel, RQ's own cleaning) removes it. An empty execution id is a run without a lease,
-- in the process of its producer: its job must still exist. Its first write frees memory, so it passes at maxmemory.
local function take(id, execution, queue)
  if execution == '' then return redis.call('EXISTS', job_key(id)) == 1 end
  return redis.call('ZREM', started_key(queue), id .. ':' .. execution) == 1
end

-- Strikes an execution from what its worker runs now, whether or not it was still the worker's.
local function let_go(id, execution, worker)
  local composite = id .. ':' .. execution
  redis.call('SREM', held_key(worker), composite)
  redis.call('SREM', worker_executions_key(worker), composite)
end

-- Drops the record of an execution that was taken.
local function drop(id, execution, worker)
  if execution == '' then return end
  redis.call('DEL', execution_key(id .. ':' .. execution))
  redis.call('ZREM', executions_key(id), execution)
  let_go(id, execution, worker)
end

-- Whether a repeated call finds that its first try was carried out, though its reply was lost.
local function recorded(id, execution)
  local last = redis.call('XREVRANGE', results_key(id), '+', '-', 'COUNT', 1)[1]
  if not last then return false end
  for i = 1, #last[2], 2 do
    if last[2][i] == 'execution_id' then return last[2][i + 1] == execution end
  end
  return false
end

-- Drops RQ's records of the executions of a batch that were taken, of which short ones have none.
local function drop_records(items)
  local records = {}
  for _, item in ipairs(items) do
    if item.taken and item.composite then records[#records + 1] = execution_key(item.composite) end
  end
  if #records == 0 or redis.call('DEL', unpack(records)) == 0 then return end
  for _, item in ipairs(items) do
    if item.taken and item.composite then redis.call('ZREM', executions_key(item.id), item.execution) end
  end
end

-- The same for a batch of {id, execution, queue, composite}, the last being id:execution if there is one: marks those that
-- the caller still owns as taken, with a few commands for all.
local function take_batch(items, worker)
  local by_queue, composites = {}, {}
  for _, item in ipairs(items) do
    if item.execution == '' then
      item.taken = take(item.id, '', item.queue)
    else
      composites[#composites + 1] = item.composite
      local of_queue = by_queue[item.queue] or { items = {}, composites = {} }
      by_queue[item.queue] = of_queue
      table.insert(of_queue.items, item)
      table.insert(of_queue.composites, item.composite)
    end
  end
  if #composites == 0 then return end
  for queue, of_queue in pairs(by_queue) do
    local scores = redis.call('ZMSCORE', started_key(queue), unpack(of_queue.composites))
    redis.call('ZREM', started_key(queue), unpack(of_queue.composites))
    local seen = {}
    for i, item in ipairs(of_queue.items) do
      item.taken = scores[i] ~= false and not seen[item.composite]
      seen[item.composite] = true
    end
  end
  redis.call('SREM', held_key(worker), unpack(composites))
  -- The index has what has a record: short executions have none, and then there is nothing more to drop.
  if redis.call('EXISTS', worker_executions_key(worker)) == 0 then return end
  redis.call('SREM', worker_executions_key(worker), unpack(composites))
  drop_records(items)
end
