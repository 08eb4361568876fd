-- Enqueues the job of one tick of a cron job, and records it, unless another scheduler was first.
-- KEYS: last tick, queues set, queue list, job hash, history of the cron job, names of cron jobs
-- ARGV: expected last tick, this tick ('' for both: enqueue in any case), ttl of the last tick (s), job id,
--       job ttl (s or ''), time of the tick (epoch), name of the cron job, longest history, ttl of the history (s),
--       field, value...
-- Returns the last tick as it is then: this one if the caller enqueued it, now or in an earlier call.

local expected, tick, id, epoch = ARGV[1], ARGV[2], ARGV[4], ARGV[6]
if tick ~= '' then
  local last = redis.call('GET', KEYS[1]) or ''
  if last ~= expected then return last end
elseif redis.call('EXISTS', KEYS[4]) == 1 then
  return tick
end
redis.call('SADD', KEYS[2], KEYS[3])
redis.call('HSET', KEYS[4], 'status', 'queued', unpack(ARGV, 10))
if ARGV[5] ~= '' then redis.call('EXPIRE', KEYS[4], tonumber(ARGV[5])) end
redis.call('RPUSH', KEYS[3], id)
-- After what may fail, so that an error leaves the tick to be tried again.
if tick ~= '' then redis.call('SET', KEYS[1], tick, 'EX', tonumber(ARGV[3])) end
redis.call('ZADD', KEYS[5], epoch, id)
redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -(tonumber(ARGV[8]) + 1))
redis.call('EXPIRE', KEYS[5], tonumber(ARGV[9]))
redis.call('ZADD', KEYS[6], epoch, ARGV[7])
return tick
