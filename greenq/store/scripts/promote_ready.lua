-- Moves jobs that an RQ worker has marked ready into their queue.
-- KEYS: ready registry
-- ARGV: queue, now (ISO), job ids...
-- Returns the ids moved.
--- @include clock
--- @include submit

local queue, iso = ARGV[1], ARGV[2]
local now = clock()
local promoted = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  if redis.call('ZREM', KEYS[1], id) == 1 then
    local job = redis.call('HMGET', job_key(id), 'status', 'enqueue_at_front', 'rate_limit_key',
      'rate_limit_concurrency', 'enqueue_at_front_on_retry', 'ended_at')
    if job[1] == 'ready_to_enqueue' then
      local front = job[2] == '1' or (job[5] == '1' and job[6] and job[6] ~= '')
      submit(id, queue, front, job[3], job[4], now, iso)
      promoted[#promoted + 1] = id
    end
  end
end
return promoted
