-- Ends a worker's registration. What it still holds stays recoverable: its lease then ends at once, or after `linger`
-- if the server may still park something for it until then.
-- KEYS: worker hash, member hash, leases, parked list, held set
-- ARGV: worker name, token, now (ISO), linger (ms), queue names...
-- Returns the number of executions that it left behind.
--- @include clock
--- @include unpark

local worker, token, linger = ARGV[1], ARGV[2], tonumber(ARGV[4])
local _, now = clock()
local holder = redis.call('HGET', KEYS[2], 'token')
if holder and holder ~= token then return 0 end
unpark(worker)
local left = redis.call('SCARD', KEYS[5])
if left == 0 and linger == 0 then
  redis.call('ZREM', KEYS[3], worker)
  redis.call('DEL', KEYS[2])
else
  redis.call('ZADD', KEYS[3], now * 1000 + linger, worker)
end
redis.call('SREM', workers_key(), KEYS[1])
for i = 5, #ARGV do redis.call('SREM', queue_workers_key(ARGV[i]), KEYS[1]) end
redis.call('DEL', worker_executions_key(worker))
redis.call('HSET', KEYS[1], 'death', ARGV[3])
redis.call('EXPIRE', KEYS[1], 60)
return left
