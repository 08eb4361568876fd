-- Registers a worker: RQ's record and indexes, and greenq's lease.
-- KEYS: worker hash, member hash, leases
-- ARGV: worker name, token of this incarnation, lease (ms), worker ttl (s), what becomes of jobs it loses (requeue or
--       fail), again ('1': the same incarnation returns after its record was lost), number of queues, queue names...,
--       field, value... (RQ's record)
-- Returns ok, or taken if a live worker has the name. What a dead namesake held and had parked is then the caller's.
--- @include clock

local worker, token, again = ARGV[1], ARGV[2], ARGV[6] == '1'
local _, now = clock()
local queue_count = tonumber(ARGV[7])
local holder = redis.call('HGET', KEYS[2], 'token')
if again then
  if holder and holder ~= token then return 'taken' end
elseif holder ~= token then
  local lease = redis.call('ZSCORE', KEYS[3], worker)
  if lease and tonumber(lease) > now * 1000 then return 'taken' end
  local is_alive = redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HEXISTS', KEYS[1], 'death') == 0
  if not lease and is_alive then return 'taken' end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(ARGV, 8 + queue_count))
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[4]))
redis.call('SADD', workers_key(), KEYS[1])
for i = 8, 7 + queue_count do redis.call('SADD', queue_workers_key(ARGV[i]), KEYS[1]) end
redis.call('HSET', KEYS[2], 'token', token, 'on_lost', ARGV[5])
redis.call('ZADD', KEYS[3], now * 1000 + tonumber(ARGV[3]), worker)
return 'ok'
