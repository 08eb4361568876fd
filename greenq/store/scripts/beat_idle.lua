-- Extends the lease of a worker that runs nothing, with as few commands as can be: there are many such workers.
-- KEYS: worker hash, leases
-- ARGV: worker name, token, lease (ms), look ('1': looks at the leases of others as well)
-- Returns {verdict, ms until the first lease ends (0 if not looked at)}; the verdict is ok; missing (the record was lost:
-- join again); superseded (another incarnation has the name); or lost (the lease of another worker has ended).
--- @include clock

local worker, token, lease, look = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local _, exact = clock()
local holder = redis.call('HGET', KEYS[1], 'greenq_token')
if not holder then return { 'missing', 0 } end
if holder ~= token then return { 'superseded', 0 } end
redis.call('ZADD', KEYS[2], exact * 1000 + lease, worker)
if not look then return { 'ok', 0 } end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local left = tonumber(first[2]) - exact * 1000
return { left > 0 and 'ok' or 'lost', math.max(math.floor(left), 0) }
