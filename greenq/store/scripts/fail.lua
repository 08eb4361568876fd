-- Records a batch of executions that failed for good, or were stopped on request.
-- KEYS: worker hash
-- ARGV: worker name, now (ISO), repeat ('1' or '0'), state for the worker ('' leaves it); then for each execution:
--       job id, execution id ('' without a lease), queue, status (failed or stopped), result type,
--       failure ttl (s; -1 forever, 0 delete), register ('0' leaves registry and result unwritten), started (epoch),
--       ended (epoch), ended (ISO), exception text (encoded), return value (encoded, '' for none), rate limit ('' none)
-- Returns for each execution 1; 0 if it was no longer the caller's (then nothing was written for it); or, as text, why
-- Redis refused to write it (then the caller still holds it).
--- @include clock
--- @include execution
--- @include outcomes
--- @include result
--- @include dependents

local worker, iso, is_repeat, state = ARGV[1], ARGV[2], ARGV[3] == '1', ARGV[4]
local now = clock()
local replies = {}
local done, working_time = 0, 0

local function settle(item)
  local id, execution, queue, at = item.id, item.execution, item.queue, item.at
  local status, ttl = ARGV[at + 3], tonumber(ARGV[at + 5])
  drop(id, execution, worker)
  redis.call('HSET', job_key(id), 'status', status, 'ended_at', ARGV[at + 9], 'last_heartbeat', ARGV[at + 9],
    'worker_name', worker)
  if redis.call('EXISTS', dependents_key(id)) == 1 then release_dependents(id, status, '', now, iso) end
  if ARGV[at + 6] == '1' then
    if ttl == 0 then
      forget_job(id)
    else
      add_result(id, ARGV[at + 4], worker, ARGV[at + 11], ARGV[at + 10], execution, ARGV[at + 7], ARGV[at + 8], ttl)
      redis.call('ZADD', failed_key(queue), ttl < 0 and ttl or now + ttl, id)
      expire_job(id, ttl)
    end
  end
  if ARGV[at + 12] ~= '' then free_slot(id, ARGV[at + 12], now, iso) end
end

for at = 5, #ARGV, 13 do
  local id, execution, queue = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if take(id, execution, queue) then
    local reply = settle_safely(settle, { id = id, execution = execution, queue = queue, at = at }, worker, now)
    if reply == 1 then
      done = done + 1
      working_time = working_time + tonumber(ARGV[at + 8]) - tonumber(ARGV[at + 7])
    end
    replies[#replies + 1] = reply
  else
    let_go(id, execution, worker)
    if ARGV[at + 12] ~= '' then free_slot_of_loser(id, ARGV[at + 12], now, iso) end
    replies[#replies + 1] = (is_repeat and recorded(id, execution)) and 1 or 0
  end
end

note_outcomes(KEYS[1], worker, 'failed_job_count', done, working_time, state)
return replies
