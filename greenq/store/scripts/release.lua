-- Gives a worker's executions back: each job returns to the front of its queue without using a retry.
-- KEYS: worker's held set
-- ARGV: worker name, now (ISO), limit of interruptions in a row (0: they never began), reason of a poison job
--       (encoded), failure ttl (s), state for the worker ('' leaves it); then, last first: job id, execution id, queue
-- Returns for each execution the status its job has then, 'gone', or 'lost' if it was no longer the caller's.
--- @include clock
--- @include give_back

local worker, iso, limit, reason, failure_ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local now = clock()
local replies = {}
for at = 7, #ARGV, 3 do
  local id, execution, queue = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if take(id, execution, queue) then
    drop(id, execution, worker)
    replies[#replies + 1] = give_back(id, queue, worker, limit, reason, execution, failure_ttl, now, iso)
  else
    let_go(id, execution, worker)
    replies[#replies + 1] = 'lost'
  end
end
if ARGV[6] ~= '' and redis.call('EXISTS', worker_key(worker)) == 1 then
  redis.call('HSET', worker_key(worker), 'state', ARGV[6])
end
return replies
