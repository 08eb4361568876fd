-- Stores a job that is to be enqueued at a given time.
-- KEYS: queues set, queue list, job hash, scheduled registry
-- ARGV: queue name, job id, due (epoch seconds), token, unique ('1' or '0'), ttl (seconds or ''), field, value...
-- Returns scheduled, or duplicate (unique: nothing was written). A repeat with the same token writes nothing.
--- @include registries

local queue, id, due, token = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local old = redis.call('HMGET', KEYS[3], 'status', 'greenq_token', 'origin')
local done = old[2] or (not old[1] and redis.call('GET', tombstone_key(id)))
if done == token then return 'scheduled' end
if ARGV[5] == '1' and redis.call('EXISTS', KEYS[3]) == 1 then return 'duplicate' end
if old[1] then
  leave_registry(id, old[1], old[3] or queue)
  renew(id)
end
redis.call('SADD', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[3], 'status', 'scheduled', 'greenq_token', token, unpack(ARGV, 7))
if ARGV[6] ~= '' then redis.call('EXPIRE', KEYS[3], tonumber(ARGV[6])) end
redis.call('ZADD', KEYS[4], due, id)
return 'scheduled'
