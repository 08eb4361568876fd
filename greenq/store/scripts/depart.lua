-- Ends a worker's registration. What it still holds stays recoverable: its lease then ends at once.
-- KEYS: worker hash, member hash, leases, parked list, held set
-- ARGV: worker name, token, now (ISO), number of queues, queue names...
-- Returns the number of executions that it left behind.
local worker, token = ARGV[1], ARGV[2]
local holder = redis.call('HGET', KEYS[2], 'token')
if holder and holder ~= token then return 0 end
while true do
  local id = redis.call('RPOP', KEYS[4])
  if not id then break end
  local origin = redis.call('HGET', job_key(id), 'origin')
  if origin then redis.call('LPUSH', queue_key(origin), id) end
end
local left = redis.call('SCARD', KEYS[5])
if left == 0 then
  redis.call('ZREM', KEYS[3], worker)
  redis.call('DEL', KEYS[2])
else
  redis.call('ZADD', KEYS[3], 0, worker)
end
redis.call('SREM', workers_key(), KEYS[1])
for i = 5, #ARGV do redis.call('SREM', queue_workers_key(ARGV[i]), KEYS[1]) end
redis.call('DEL', worker_executions_key(worker))
redis.call('HSET', KEYS[1], 'death', ARGV[3])
redis.call('EXPIRE', KEYS[1], 60)
return left
