-- Takes a job out of the registry that its status says it is in.
local REGISTRY_KEY = {
  finished = finished_key, failed = failed_key, stopped = failed_key, deferred = deferred_key,
  ready_to_enqueue = ready_key, scheduled = scheduled_key, canceled = canceled_key,
}

local function leave_registry(id, status, origin)
  local key = REGISTRY_KEY[status]
  if key then redis.call('ZREM', key(origin), id) end
end
