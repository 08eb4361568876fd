-- Takes or keeps the locks of some queues for a scheduler, and writes its record.
-- KEYS: scheduler hash, one lock per queue
-- ARGV: scheduler name, ttl (s) of locks and record, lease (s), field, value... of the record (none: it is not written)
-- Returns for each lock 0 (another scheduler's), 1 (taken now) or 2 (kept).
-- A greenq scheduler's record says how long it answers for its locks, which is shorter than their ttl: after that they
-- are free. RQ's records say nothing, so RQ's locks are free when they expire.
--- @include clock

local name, ttl = ARGV[1], tonumber(ARGV[2])
local _, now = clock()

local function is_forsaken(holder)
  local lease = redis.call('HGET', scheduler_key(holder), 'greenq_lease')
  return lease and tonumber(lease) < now
end

local outcomes = {}
for i = 2, #KEYS do
  local holder = redis.call('GET', KEYS[i])
  if holder == name then
    redis.call('EXPIRE', KEYS[i], ttl)
    outcomes[#outcomes + 1] = 2
  elseif not holder or is_forsaken(holder) then
    redis.call('SET', KEYS[i], name, 'EX', ttl)
    outcomes[#outcomes + 1] = 1
  else
    outcomes[#outcomes + 1] = 0
  end
end
if #ARGV > 3 then
  redis.call('HSET', KEYS[1], 'greenq_lease', string.format('%.3f', now + tonumber(ARGV[3])), unpack(ARGV, 4))
  redis.call('EXPIRE', KEYS[1], ttl)
end
return outcomes
