local REGISTRY_KEY = {
  finished = finished_key, failed = failed_key, stopped = failed_key, deferred = deferred_key,
  ready_to_enqueue = ready_key, scheduled = scheduled_key, canceled = canceled_key,
}

-- Takes a job out of the registry that its status says it is in.
local function leave_registry(id, status, origin)
  local key = REGISTRY_KEY[status]
  if key then redis.call('ZREM', key(origin), id) end
end

-- Whether a job that says so waits in its queue, or is in the registry of its status.
local function is_in_place(id, status, origin)
  if status == 'queued' then return redis.call('LPOS', queue_key(origin), id) end
  local key = REGISTRY_KEY[status]
  return key and redis.call('ZSCORE', key(origin), id)
end

-- What a job that is submitted anew must not keep of its last life: the time of its end, and its interruptions.
local function renew(id)
  redis.call('PERSIST', job_key(id))
  redis.call('HDEL', job_key(id), 'greenq_interruptions')
end
