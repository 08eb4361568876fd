-- Records a batch of executions that succeeded.
-- KEYS: worker hash
-- ARGV: worker name, now (ISO), repeat ('1' or '0'), state for the worker ('' leaves it); then for each execution:
--       job id, execution id ('' without a lease), queue, result ttl (s; -1 forever, 0 delete), started (epoch),
--       ended (epoch), ended (ISO), return value (encoded, '' for none), options (JSON or '')
--       options: rate_limit (key), repeat {left, intervals, due (epoch; 0 at once)}
-- Returns for each execution 1; 0 if it was no longer the caller's (then nothing was written for it); 2 if its job was
-- canceled meanwhile (then its result was kept, and the job stays canceled).
--- @include clock
--- @include execution
--- @include result
--- @include dependents

local worker, iso, is_repeat, state = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4]
local now = clock()
local replies, finished = {}, {}
local done, working_time = 0, 0

local function keep(id, execution, queue, ttl, at)
  redis.call('HSET', job_key(id), 'status', 'finished', 'ended_at', ARGV[at + 6], 'last_heartbeat', ARGV[at + 6],
    'worker_name', worker)
  add_result(id, 1, worker, ARGV[at + 7], '', execution, ARGV[at + 4], ARGV[at + 5], ttl)
end

local function register(id, queue, ttl)
  local entries = finished[queue] or {}
  finished[queue] = entries
  entries[#entries + 1] = ttl < 0 and '+inf' or now + ttl
  entries[#entries + 1] = id
  if ttl > 0 then
    redis.call('EXPIRE', job_key(id), ttl)
    if ttl < 60 or redis.call('EXISTS', dependents_key(id), dependencies_key(id)) > 0 then expire_job(id, ttl) end
  end
end

local function again(id, queue, plan)
  redis.call('HSET', job_key(id), 'repeats_left', plan.left, 'repeat_intervals', plan.intervals)
  redis.call('HDEL', job_key(id), 'greenq_interruptions')
  if plan.due > 0 then
    redis.call('HSET', job_key(id), 'status', 'scheduled')
    redis.call('ZADD', scheduled_key(queue), plan.due, id)
    return 'scheduled'
  end
  redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', iso)
  redis.call('RPUSH', queue_key(queue), id)
  return 'queued'
end

local function settle(id, execution, queue, at)
  local ttl, options = tonumber(ARGV[at + 3]), ARGV[at + 8]
  options = options ~= '' and cjson.decode(options) or nil
  drop(id, execution, worker)
  if ttl ~= 0 then keep(id, execution, queue, ttl, at) end
  if redis.call('EXISTS', dependents_key(id)) == 1 then release_dependents(id, 'finished', '', now, iso) end
  local status = 'finished'
  if options and options['repeat'] then
    status = again(id, queue, options['repeat'])
  elseif ttl == 0 then
    forget_job(id)
  else
    register(id, queue, ttl)
  end
  if options and options.rate_limit and status ~= 'queued' then free_slot(id, options.rate_limit, now, iso) end
end

-- A canceled job that ran to its end keeps its result: the execution's record shows that nobody else has run it.
local function keep_result_of_canceled(id, execution, at)
  local composite = id .. ':' .. execution
  if redis.call('HGET', job_key(id), 'status') ~= 'canceled' then return false end
  if redis.call('EXISTS', execution_key(composite)) == 0 then return false end
  drop(id, execution, worker)
  if tonumber(ARGV[at + 3]) == 0 then return true end
  add_result(id, 1, worker, ARGV[at + 7], '', execution, ARGV[at + 4], ARGV[at + 5], tonumber(ARGV[at + 3]))
  return true
end

local function lose(id, execution, at)
  let_go(id, execution, worker)
  local kept = execution ~= '' and keep_result_of_canceled(id, execution, at)
  local options = ARGV[at + 8] ~= '' and cjson.decode(ARGV[at + 8]) or {}
  if options.rate_limit then free_slot_of_loser(id, options.rate_limit, now, iso) end
  if kept then return 2 end
  return (is_repeat and recorded(id, execution)) and 1 or 0
end

for at = 5, #ARGV, 9 do
  local id, execution, queue = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if take(id, execution, queue) then
    settle(id, execution, queue, at)
    done = done + 1
    working_time = working_time + tonumber(ARGV[at + 5]) - tonumber(ARGV[at + 4])
    replies[#replies + 1] = 1
  else
    replies[#replies + 1] = lose(id, execution, at)
  end
end

for queue, entries in pairs(finished) do redis.call('ZADD', finished_key(queue), unpack(entries)) end
if worker ~= '' and redis.call('EXISTS', KEYS[1]) == 1 then
  if done > 0 then
    redis.call('HINCRBY', KEYS[1], 'successful_job_count', done)
    redis.call('HINCRBYFLOAT', KEYS[1], 'total_working_time', string.format('%.6f', working_time))
  end
  if state ~= '' then redis.call('HSET', KEYS[1], 'state', state) end
end
return replies
