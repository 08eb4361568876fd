--- @include submit

-- Whether every dependency of a job but one is met: a missing job counts as met, as in RQ.
local function others_met(id, except, allow_failure)
  for _, dependency in ipairs(redis.call('SMEMBERS', dependencies_key(id))) do
    if dependency ~= except then
      local status = redis.call('HGET', job_key(dependency), 'status')
      if status and status ~= 'finished' and not (status == 'failed' and allow_failure) then return false end
    end
  end
  return true
end

local WAITING = { deferred = true, created = true }

-- Enqueues the dependents of a job that has ended with parent_status ('' lifts the condition on this parent);
-- returns {queue = {ids}}. A dependent is left alone unless it still waits.
local function release_dependents(id, parent_status, exclude, now, iso)
  local released = {}
  local waiting = redis.call('SMEMBERS', dependents_key(id))
  for _, dependent in ipairs(waiting) do
    local job = redis.call('HMGET', job_key(dependent), 'status', 'origin', 'allow_dependency_failures',
      'enqueue_at_front', 'rate_limit_key', 'rate_limit_concurrency')
    local allow_failure = job[3] == '1'
    local parent_met = parent_status == '' or parent_status == 'finished' or (parent_status == 'failed' and allow_failure)
    if not job[1] then
      redis.call('SREM', dependents_key(id), dependent)
    elseif dependent ~= exclude and WAITING[job[1]] and parent_met and others_met(dependent, id, allow_failure) then
      local queue = job[2] or ''
      redis.call('SREM', dependents_key(id), dependent)
      redis.call('ZREM', deferred_key(queue), dependent)
      submit(dependent, queue, job[4] == '1', job[5], job[6], now, iso)
      released[queue] = released[queue] or {}
      table.insert(released[queue], dependent)
    end
  end
  return released
end

-- The same as a flat reply: queue, {ids}, queue, {ids}...
local function flatten(released)
  local reply = {}
  for queue, ids in pairs(released) do
    reply[#reply + 1] = queue
    reply[#reply + 1] = ids
  end
  return reply
end
