--- @include rate

-- Moves a job whose hash exists into its queue (or behind its rate limit); returns the status it has then.
local function submit(id, queue, front, rate_key, concurrency, now, iso)
  redis.call('SADD', queues_key(), queue_key(queue))
  if rate_key and concurrency then
    redis.call('HSET', job_key(id), 'enqueue_at_front', front and '1' or '0')
    return hold_back(id, rate_key, tonumber(concurrency), now, iso)
  end
  redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', iso)
  redis.call(front and 'LPUSH' or 'RPUSH', queue_key(queue), id)
  return 'queued'
end
