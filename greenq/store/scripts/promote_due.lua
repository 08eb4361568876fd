-- Moves scheduled jobs whose time has come into their queue, a chunk at a time.
-- KEYS: scheduled registry
-- ARGV: queue, now (ISO), how many at most
-- Returns the ids moved, and how many entries were looked at (fewer than asked for: none is left that is due).
--- @include clock
--- @include submit

local queue, iso = ARGV[1], ARGV[2]
local now = clock()
local promoted = {}
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[3]))
for _, id in ipairs(due) do
  redis.call('ZREM', KEYS[1], id)
  local job = redis.call('HMGET', job_key(id), 'status', 'enqueue_at_front', 'rate_limit_key',
    'rate_limit_concurrency', 'enqueue_at_front_on_retry', 'ended_at')
  if job[1] == 'scheduled' then
    local front = job[2] == '1' or (job[5] == '1' and job[6] and job[6] ~= '')
    submit(id, queue, front, job[3], job[4], now, iso)
    promoted[#promoted + 1] = id
  end
end
return { promoted, #due }
