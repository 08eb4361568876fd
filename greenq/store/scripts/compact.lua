-- Removes the ids from a queue whose jobs no longer exist; the order of the others stays.
-- KEYS: queue list
-- Returns how many were removed.
local removed = 0
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  if redis.call('EXISTS', job_key(id)) == 0 then removed = removed + redis.call('LREM', KEYS[1], 1, id) end
end
return removed
