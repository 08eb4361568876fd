-- Ends the lease of a worker that is known to be dead, and notes for its recovery what is known of its death.
-- KEYS: member hash, leases
-- ARGV: worker name, execution that is to blame ('' unknown), verdict (suspect: it was running when the worker died;
--       overdue: the worker was killed because it hung past its deadline; '' none), cause
-- Returns 1; 0 if there is no such worker, any more: then nothing was written.

local worker = ARGV[1]
-- Removed before it is added: a write that frees memory goes first, so that this passes at maxmemory.
local had_lease = redis.call('ZREM', KEYS[2], worker) == 1
if not had_lease and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[2], 0, worker)
redis.call('HSET', KEYS[1], 'culprit', ARGV[2], 'verdict', ARGV[3], 'cause', ARGV[4])
return 1
