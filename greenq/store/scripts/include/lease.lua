-- Gives a worker that has no lease one of some milliseconds. Whoever was given up for dead, and is not, must not hold
-- anything that nobody can see expire.
local function ensure_lease(worker, lease, now)
  redis.call('ZADD', leases_key(), 'NX', now * 1000 + lease, worker)
end
