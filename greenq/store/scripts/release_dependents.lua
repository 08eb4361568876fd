-- Enqueues the dependents of a job that has ended, if all that they wait for has.
-- KEYS: job hash
-- ARGV: job id, now (ISO), status to take for the job ('' reads it), dependent to leave out ('' none)
-- Returns a flat list of queue, {ids}.
--- @include clock
--- @include dependents

local status = ARGV[3]
if status == '' then status = redis.call('HGET', KEYS[1], 'status') or 'finished' end
return flatten(release_dependents(ARGV[1], status, ARGV[4], clock(), ARGV[2]))
