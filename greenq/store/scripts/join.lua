-- Registers a worker: RQ's record and indexes, and greenq's lease.
-- KEYS: worker hash, member hash, leases
-- ARGV: worker name, token of this incarnation, lease (ms), worker ttl (s), again ('1': the same incarnation returns
--       after its record was lost), number of queues, queue names..., number of items, field, value... (what becomes of
--       jobs it loses), field, value... (RQ's record)
-- Returns ok, or taken if a live worker has the name. What a dead namesake held and had parked is then the caller's,
-- with what was reported of its death.
--- @include clock

local worker, token, again = ARGV[1], ARGV[2], ARGV[5] == '1'
local _, now = clock()
local last_queue = 6 + tonumber(ARGV[6])
local last_rule = last_queue + 1 + tonumber(ARGV[last_queue + 1])
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
redis.call('HSET', KEYS[1], 'greenq_token', token, unpack(ARGV, last_rule + 1))
redis.call('EXPIRE', KEYS[1], tonumber(ARGV[4]))
redis.call('SADD', workers_key(), KEYS[1])
for i = 7, last_queue do redis.call('SADD', queue_workers_key(ARGV[i]), KEYS[1]) end
local death = redis.call('HMGET', KEYS[2], 'culprit', 'verdict', 'cause')
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], 'token', token, unpack(ARGV, last_queue + 2, last_rule))
if death[1] then redis.call('HSET', KEYS[2], 'culprit', death[1], 'verdict', death[2], 'cause', death[3]) end
redis.call('ZADD', KEYS[3], now * 1000 + tonumber(ARGV[3]), worker)
return 'ok'
