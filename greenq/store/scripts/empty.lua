-- Deletes up to a number of jobs from the left of a queue.
-- KEYS: queue list
-- ARGV: how many at most
-- Returns how many were deleted.
--- @include result

local ids = redis.call('LPOP', KEYS[1], tonumber(ARGV[1])) or {}
for _, id in ipairs(ids) do forget_job(id) end
return #ids
