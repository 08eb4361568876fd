-- Counts the jobs of queues.
-- KEYS: none
-- ARGV: queue names...
-- Returns {waiting, executing, finished, failed} for each; what has expired, and only waits to be cleaned, is left out.
--- @include clock

local now = clock()

local function kept(key)
  return redis.call('ZCARD', key) - redis.call('ZCOUNT', key, 0, now)
end

local counts = {}
for i, queue in ipairs(ARGV) do
  counts[i] = {
    redis.call('LLEN', queue_key(queue)), redis.call('ZCARD', started_key(queue)),
    kept(finished_key(queue)), kept(failed_key(queue)),
  }
end
return counts
