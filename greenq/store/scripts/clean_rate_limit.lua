-- Forgets a rate limit that no job uses.
-- KEYS: allowed set, waiting set, settings hash, set of all rate limits
-- ARGV: rate limit
-- Returns 1 if it was forgotten, else 0.
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end
redis.call('DEL', KEYS[3])
redis.call('SREM', KEYS[4], ARGV[1])
return 1
