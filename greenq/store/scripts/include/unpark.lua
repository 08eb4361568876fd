-- Returns what is parked for a worker to the front of where it came from, in order; an id without a job is dropped.
local function unpark(worker)
  local moved = 0
  while true do
    local id = redis.call('RPOP', parked_key(worker))
    if not id then return moved end
    local origin = redis.call('HGET', job_key(id), 'origin')
    if origin then
      redis.call('LPUSH', queue_key(origin), id)
      moved = moved + 1
    end
  end
end
