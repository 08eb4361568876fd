-- Sends a batch of failed executions round again: at once, or at a time.
-- KEYS: worker hash
-- ARGV: worker name, now (ISO), repeat ('1' or '0'), state for the worker ('' leaves it); then for each execution:
--       job id, execution id, queue, due (epoch; '' at once), at_front ('1' or '0'), started (epoch), ended (epoch),
--       ended (ISO), return value of a job that asked for the retry (encoded, '' otherwise), result ttl (s),
--       rate limit ('' none), number of items, field, value... (the retry counters)
-- Returns for each execution 1; 0 if it was no longer the caller's (then nothing was written for it); or, as text, why
-- Redis refused to write it (then the caller still holds it).
--- @include clock
--- @include execution
--- @include outcomes
--- @include result
--- @include rate

local worker, iso, is_repeat, state = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4]
local now = clock()
local replies = {}
local done, working_time = 0, 0

local function settle(item)
  local id, execution, queue, at = item.id, item.execution, item.queue, item.at
  local due = ARGV[at + 3]
  drop(id, execution, worker)
  redis.call('HSET', job_key(id), 'ended_at', ARGV[at + 7], 'last_heartbeat', ARGV[at + 7], unpack(ARGV, item.first, item.last))
  redis.call('HDEL', job_key(id), 'greenq_interruptions')
  if ARGV[at + 8] ~= '' then
    add_result(id, 4, worker, ARGV[at + 8], '', execution, ARGV[at + 5], ARGV[at + 6], tonumber(ARGV[at + 9]))
  end
  if due == '' then
    redis.call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', iso)
    redis.call('SADD', queues_key(), queue_key(queue))
    redis.call(ARGV[at + 4] == '1' and 'LPUSH' or 'RPUSH', queue_key(queue), id)
  else
    redis.call('HSET', job_key(id), 'status', 'scheduled')
    redis.call('ZADD', scheduled_key(queue), due, id)
    if ARGV[at + 10] ~= '' then free_slot(id, ARGV[at + 10], now, iso) end
  end
end

-- A try whose reply was lost left the job where it was to go, and nowhere else.
local function sent_already(id, execution)
  return recorded(id, execution) or redis.call('EXISTS', execution_key(id .. ':' .. execution)) == 0
end

local at = 5
while at <= #ARGV do
  local id, execution, queue = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local first = at + 12
  local last = first + tonumber(ARGV[at + 11]) - 1
  if take(id, execution, queue) then
    local item = { id = id, execution = execution, queue = queue, at = at, first = first, last = last }
    local reply = settle_safely(settle, item, worker, now)
    if reply == 1 then
      done = done + 1
      working_time = working_time + tonumber(ARGV[at + 6]) - tonumber(ARGV[at + 5])
    end
    replies[#replies + 1] = reply
  else
    let_go(id, execution, worker)
    if ARGV[at + 10] ~= '' then free_slot_of_loser(id, ARGV[at + 10], now, iso) end
    replies[#replies + 1] = (is_repeat and sent_already(id, execution)) and 1 or 0
  end
  at = last + 1
end

note_outcomes(KEYS[1], worker, 'failed_job_count', done, working_time, state)
return replies
