-- Moves a chunk of the scheduled jobs whose time has come into their queue, if the caller is still their scheduler.
-- KEYS: scheduled registry, scheduler lock
-- ARGV: queue, scheduler name ('' asks for no lock), now (ISO), how many entries to look at
-- Returns {entries looked at (-1: the lock is not the caller's, nothing was done), {ids moved}}.
--- @include clock
--- @include submit

local queue, scheduler, iso = ARGV[1], ARGV[2], ARGV[3]
if scheduler ~= '' and redis.call('GET', KEYS[2]) ~= scheduler then return { -1, {} } end
local now = clock()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, tonumber(ARGV[4]))
local moved = {}

-- Whoever adds a job to the registry by hand leaves the status that it was made with.
local function waits(status, enqueued_at)
  if status == 'scheduled' or status == 'created' then return true end
  return status == 'queued' and (not enqueued_at or enqueued_at == '')
end

for _, id in ipairs(due) do
  redis.call('ZREM', KEYS[1], id)
  local job = redis.call('HMGET', job_key(id), 'status', 'enqueued_at', 'enqueue_at_front', 'rate_limit_key',
    'rate_limit_concurrency', 'enqueue_at_front_on_retry', 'ended_at')
  if waits(job[1], job[2]) then
    local front = job[3] == '1' or (job[6] == '1' and job[7] and job[7] ~= '')
    submit(id, queue, front, job[4], job[5], now, iso)
    moved[#moved + 1] = id
  end
end
return { #due, moved }
