-- Records a batch of executions that succeeded.
-- KEYS: worker hash
-- ARGV: worker name, now (ISO), repeat ('1' or '0'), state for the worker ('' leaves it); then for each execution:
--       job id:execution id (which is '' without a lease),
--       result ttl (s; -1 forever, 0 delete) started (epoch) ended (epoch) ended (ISO) queue, with a space between each,
--       return value (encoded, '' for none), options (JSON or '')
--       options: rate_limit (key), repeat {left, intervals, due (epoch; 0 at once)}, has_dependencies
-- Returns for each execution 1; 0 if it was no longer the caller's (then nothing was written for it); 2 if its job was
-- canceled meanwhile (then its result was kept, and the job stays canceled); or, as text, why Redis refused to write it
-- (then the caller still holds it).
--- @include clock
--- @include execution
--- @include outcomes
--- @include result
--- @include dependents

local worker, iso, is_repeat, state = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4]
local now = clock()
local replies, finished = {}, {}
local done, working_time = 0, 0

local function register(item, has_links)
  local entries = finished[item.queue] or {}
  finished[item.queue] = entries
  entries[#entries + 1] = item.ttl < 0 and '+inf' or now + item.ttl
  entries[#entries + 1] = item.id
  if item.ttl <= 0 then return end
  if has_links or item.ttl < 60 then expire_job(item.id, item.ttl) else redis.call('EXPIRE', item.key, item.ttl) end
end

local function keep_result(item)
  add_result(item.id, 1, worker, item.value, '', item.execution, item.started, item.ended, item.ttl)
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

local function settle(item)
  local id, queue = item.id, item.queue
  local options = item.options
  if item.ttl ~= 0 then
    local iso_end = item.iso_end
    redis.call('HSET', item.key, 'status', 'finished', 'ended_at', iso_end, 'last_heartbeat', iso_end)
    keep_result(item)
  end
  local has_links = item.has_dependents or (options and options.has_dependencies)
  if has_links then release_dependents(id, 'finished', '', now, iso) end
  local status = 'finished'
  if options and options['repeat'] then
    status = again(id, queue, options['repeat'])
  elseif item.ttl == 0 then
    forget_job(id)
  else
    register(item, has_links)
  end
  if options and options.rate_limit and status ~= 'queued' then free_slot(id, options.rate_limit, now, iso) end
end

-- A canceled job that ran to its end keeps its result, if no other execution has begun since.
local function keep_result_of_canceled(item)
  local job = redis.call('HMGET', job_key(item.id), 'status', 'greenq_execution')
  if job[1] ~= 'canceled' or job[2] ~= item.execution then return false end
  drop(item.id, item.execution, worker)
  if item.ttl ~= 0 and not (is_repeat and recorded(item.id, item.execution)) then keep_result(item) end
  return true
end

local function lose(item)
  local is_kept = item.execution ~= '' and keep_result_of_canceled(item)
  if item.options and item.options.rate_limit then free_slot_of_loser(item.id, item.options.rate_limit, now, iso) end
  if is_kept then return 2 end
  return (is_repeat and recorded(item.id, item.execution)) and 1 or 0
end

-- Marks the items whose jobs others wait for: mostly there is none, which one command tells.
local function mark_dependents(items)
  local names = {}
  for i, item in ipairs(items) do names[i] = dependents_key(item.id) end
  if #names == 0 or redis.call('EXISTS', unpack(names)) == 0 then return end
  for i, item in ipairs(items) do item.has_dependents = redis.call('EXISTS', names[i]) == 1 end
end

local match = string.match
local items = {}
for at = 5, #ARGV, 4 do
  local composite, options = ARGV[at], ARGV[at + 3]
  local id, execution = match(composite, '^(.*):([^:]*)$')
  local ttl, started, ended, iso_end, queue = match(ARGV[at + 1], '^(%S+) (%S+) (%S+) (%S+) (.*)$')
  items[#items + 1] = {
    id = id, key = job_key(id), execution = execution, composite = execution ~= '' and composite, ttl = tonumber(ttl),
    started = started, ended = ended, iso_end = iso_end, queue = queue, value = ARGV[at + 2],
    options = options ~= '' and cjson.decode(options) or nil,
  }
end
take_batch(items, worker)
mark_dependents(items)
for i, item in ipairs(items) do
  if item.taken then
    replies[i] = settle_safely(settle, item, worker, now)
    if replies[i] == 1 then
      done = done + 1
      working_time = working_time + tonumber(item.ended) - tonumber(item.started)
    end
  else
    replies[i] = lose(item)
  end
end

for queue, entries in pairs(finished) do redis.call('ZADD', finished_key(queue), unpack(entries)) end
note_outcomes(KEYS[1], worker, 'successful_job_count', done, working_time, state)
return replies
