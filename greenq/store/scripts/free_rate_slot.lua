-- Gives back the rate limit slot of a job and lets waiting jobs through.
-- KEYS: allowed set
-- ARGV: rate limit, job id ('' frees none), now (ISO), only if it is stale ('1': neither queued, started nor running)
-- Returns the ids let through.
--- @include clock
--- @include rate

local key, id, iso = ARGV[1], ARGV[2], ARGV[3]
local now = clock()
if id ~= '' and ARGV[4] == '1' then
  local status = redis.call('HGET', job_key(id), 'status')
  if status == 'queued' or status == 'started' then return {} end
  if redis.call('ZCOUNT', executions_key(id), '(' .. now, '+inf') > 0 then return {} end
  if not redis.call('ZSCORE', KEYS[1], id) then return {} end
end
return free_slot(id, key, now, iso)
