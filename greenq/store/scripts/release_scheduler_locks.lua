-- Gives back those of some locks that are still the scheduler's.
-- KEYS: one lock per queue
-- ARGV: scheduler name
-- Returns how many it gave back.

local released = 0
for _, lock in ipairs(KEYS) do
  if redis.call('GET', lock) == ARGV[1] then released = released + redis.call('DEL', lock) end
end
return released
