-- Moves scheduled jobs whose time has come into their queue, a chunk at a time. A job that was put into the registry
-- without Queue.schedule_job still has the status created.
-- KEYS: scheduled registry
-- ARGV: queue, now (ISO), how many at most
-- Returns the ids moved; fewer than asked for: none is left that is due.
--- @include clock
--- @include submit

local queue, iso = ARGV[1], ARGV[2]
local now = clock()
local limit = tonumber(ARGV[3])
local promoted = {}

local function promote(id)
  redis.call('ZREM', KEYS[1], id)
  local job = redis.call('HMGET', job_key(id), 'status', 'enqueue_at_front', 'rate_limit_key',
    'rate_limit_concurrency', 'enqueue_at_front_on_retry', 'ended_at')
  if job[1] == 'scheduled' or job[1] == 'created' then
    local front = job[2] == '1' or (job[5] == '1' and job[6] and job[6] ~= '')
    submit(id, queue, front, job[3], job[4], now, iso)
    promoted[#promoted + 1] = id
  end
end

while #promoted < limit do
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, limit - #promoted)
  if #due == 0 then break end
  for _, id in ipairs(due) do promote(id) end
end
return promoted
