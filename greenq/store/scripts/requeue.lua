-- Moves a job from a registry back into its queue.
-- KEYS: the registry, job hash
-- ARGV: job id, queue, at_front ('1' or '0'), now (ISO)
-- Returns the status it has then; an empty string if it was not in the registry; 'gone' if its hash is.
--- @include clock
--- @include submit

local id, queue = ARGV[1], ARGV[2]
if redis.call('ZREM', KEYS[1], id) == 0 then
  -- A repeat of a call whose reply was lost finds what that one has done.
  local now = redis.call('HMGET', KEYS[2], 'status', 'enqueued_at')
  return now[2] == ARGV[4] and now[1] or ''
end
local job = redis.call('HMGET', KEYS[2], 'status', 'rate_limit_key', 'rate_limit_concurrency', 'ttl')
if not job[1] then return 'gone' end
redis.call('HSET', KEYS[2], 'started_at', '', 'ended_at', '', 'last_heartbeat', '')
redis.call('HDEL', KEYS[2], 'greenq_interruptions', 'exc_info')
if job[4] then redis.call('EXPIRE', KEYS[2], tonumber(job[4])) else redis.call('PERSIST', KEYS[2]) end
return submit(id, queue, ARGV[3] == '1', job[2], job[3], clock(), ARGV[4])
