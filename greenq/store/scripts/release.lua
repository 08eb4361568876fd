-- Gives a worker's executions back: each job returns to the front of its queue without using a retry.
-- KEYS: worker's held set
-- ARGV: worker name, now (ISO), limit of interruptions in a row (0: they never began), the same for innocent ones,
--       template of the reason of a poison job, failure ttl (s), cause, state for the worker ('' leaves it), innocent
--       ('1': another job is to blame); then, last first: job id, execution id, queue
-- Returns for each execution the status its job has then, 'gone', or 'lost' if it was no longer the caller's.
--- @include clock
--- @include give_back

local worker, iso = ARGV[1], ARGV[2]
local rules = {
  limit = tonumber(ARGV[3]), innocent_limit = tonumber(ARGV[4]), reason = ARGV[5], failure_ttl = tonumber(ARGV[6]),
}
local cause, state, is_innocent = ARGV[7], ARGV[8], ARGV[9] == '1'
local now = clock()
local replies = {}
for at = 10, #ARGV, 3 do
  local id, execution, queue = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if take(id, execution, queue) then
    drop(id, execution, worker)
    local cut = { worker = worker, execution = execution, cause = cause, is_innocent = is_innocent }
    replies[#replies + 1] = give_back(id, queue, cut, rules, now, iso)
  else
    let_go(id, execution, worker)
    replies[#replies + 1] = 'lost'
  end
end
if state ~= '' and redis.call('EXISTS', worker_key(worker)) == 1 then
  redis.call('HSET', worker_key(worker), 'state', state)
end
return replies
