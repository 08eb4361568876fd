-- Extends a worker's lease and nothing else: for a supervisor whose child is stuck but not overdue.
-- KEYS: leases
-- ARGV: worker name, lease (ms)
-- Returns 1 if the worker has a lease, else 0.
--- @include clock

local _, now = clock()
-- Removed before it is added: a write that frees memory goes first, so that this passes at maxmemory.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('ZADD', KEYS[1], now * 1000 + tonumber(ARGV[2]), ARGV[1])
return 1
