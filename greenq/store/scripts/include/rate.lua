-- Rate limits: a job holds a slot of its key while it is queued or started.

-- Lets waiting jobs through, oldest first, while there are free slots; returns their ids.
local function fill_slots(key, concurrency, now, iso)
  local promoted = {}
  while redis.call('ZCARD', rate_allowed_key(key)) < concurrency do
    local oldest = redis.call('ZPOPMIN', rate_limited_key(key))
    if #oldest == 0 then break end
    local id = oldest[1]
    local job = redis.call('HMGET', job_key(id), 'origin', 'status', 'enqueue_at_front')
    if job[1] and job[2] == 'rate_limited' then
      redis.call('ZADD', rate_allowed_key(key), now, id)
      redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', iso)
      redis.call(job[3] == '1' and 'LPUSH' or 'RPUSH', queue_key(job[1]), id)
      promoted[#promoted + 1] = id
    end
  end
  return promoted
end

-- The place of a job that comes last: after all who wait, though many may come within a second. RQ's jobs have whole
-- seconds, so these have as little more as possible.
local function last_place(key, now)
  local last = redis.call('ZRANGE', rate_limited_key(key), -1, -1, 'WITHSCORES')
  return math.max(now, (tonumber(last[2]) or 0) + 0.000001)
end

-- Puts a job behind its rate limit and fills what is free; the job's hash must be written already.
local function hold_back(id, key, concurrency, now, iso)
  redis.call('HSET', job_key(id), 'status', 'rate_limited')
  redis.call('SADD', rate_limits_key(), key)
  redis.call('HSET', rate_limit_key(key), 'concurrency', concurrency)
  redis.call('ZADD', rate_limited_key(key), last_place(key, now), id)
  for _, promoted in ipairs(fill_slots(key, concurrency, now, iso)) do
    if promoted == id then return 'queued' end
  end
  return 'rate_limited'
end

-- Gives a slot back and hands it to the next job.
local function free_slot(id, key, now, iso)
  redis.call('ZREM', rate_limited_key(key), id)
  redis.call('ZREM', rate_allowed_key(key), id)
  local concurrency = tonumber(redis.call('HGET', rate_limit_key(key), 'concurrency') or 0)
  return fill_slots(key, concurrency, now, iso)
end

-- A canceled or deleted job keeps its slot for as long as it runs on; its outcome, though dropped, gives the slot back.
local function free_slot_of_loser(id, key, now, iso)
  local status = redis.call('HGET', job_key(id), 'status')
  if not status or status == 'canceled' then free_slot(id, key, now, iso) end
end
