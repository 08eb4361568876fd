-- Stores a batch of jobs of one queue and makes each ready to be taken, deferred, or held back by its rate limit.
-- KEYS: queues set, queue list; and, for a single job, its hash and the token that stays of one that is gone
-- ARGV: queue name, now (ISO), token, push ('1' or '0'), names of the fields that are empty in all hashes (with a space
--       between each; * stands for USUALLY_EMPTY), number of items that all hashes share, field, value...; then for
--       each job: id, at_front ('1' or '0'), ttl (seconds or ''), options (JSON or ''), number of items, field, value...
--       options: unique, dependencies [ids], allow_failure, rate_limit [key, concurrency]
-- Returns the status of each job: queued, deferred, rate_limited, or duplicate (unique: nothing was written); of a single
-- one it may be without the list.
-- A repeat with the same token writes nothing and returns what stands.

-- Most calls enqueue one job that waits for nothing, under an id that nobody knows, and find the server's caches cold:
-- for them a path that touches little. Any other job, such as one of more fields than Lua can unpack, takes those below.
if KEYS[3] and #ARGV < 4000 and ARGV[10] == '' and ARGV[4] == '1' and ARGV[5] == '*'
  and redis.call('EXISTS', KEYS[3], KEYS[4]) == 0 then
  -- Pushed first: if the queue's key is no list, that fails before anything is written which a repeat would take for done.
  redis.call(ARGV[8] == '1' and 'LPUSH' or 'RPUSH', KEYS[2], ARGV[7])
  redis.call('SADD', KEYS[1], KEYS[2])
  redis.call('HSET', KEYS[3], 'status', 'queued', 'greenq_token', ARGV[3], 'started_at', '', 'ended_at', '',
    'last_heartbeat', '', 'worker_name', '', 'group_id', '', 'success_callback_name', '', 'failure_callback_name', '',
    'stopped_callback_name', '', unpack(ARGV, 12))
  if ARGV[9] ~= '' then redis.call('EXPIRE', KEYS[3], ARGV[9]) end
  return 'queued'
end

local queue, token, push, total = ARGV[1], ARGV[3], ARGV[4] == '1', #ARGV

-- As queued, which is what nearly all jobs are; what is to wait gets its status afterwards.
local USUALLY_EMPTY = 'started_at ended_at last_heartbeat worker_name group_id success_callback_name '
  .. 'failure_callback_name stopped_callback_name'
local hash = { 'status', 'queued', 'greenq_token', token }
for field in string.gmatch(ARGV[5] == '*' and USUALLY_EMPTY or ARGV[5], '%S+') do
  hash[#hash + 1] = field
  hash[#hash + 1] = ''
end
local first_job = 7 + tonumber(ARGV[6])
for at = 7, first_job - 1 do hash[#hash + 1] = ARGV[at] end
local shared = #hash

local function store(key, ttl, first, last)
  local upto = math.min(first + 3999, last)
  for at = first, upto do hash[shared + 1 + at - first] = ARGV[at] end
  redis.call('HSET', key, unpack(hash, 1, shared + 1 + upto - first))
  for from = first + 4000, last, 4000 do redis.call('HSET', key, unpack(ARGV, from, math.min(from + 3999, last))) end
  if ttl then redis.call('EXPIRE', key, ttl) end
end

-- Nearly all batches are of jobs that wait for nothing, under ids that nobody knows: one look at all of them, one push.
-- Returns nil, with nothing written, for any other.
local function store_new_jobs()
  local places, looked_at, seen = {}, {}, {}
  local at = first_job
  while at <= total do
    local id = ARGV[at]
    if ARGV[at + 3] ~= '' or seen[id] or #places == 2000 then return nil end
    seen[id] = true
    places[#places + 1] = at
    looked_at[#looked_at + 1] = job_key(id)
    looked_at[#looked_at + 1] = tombstone_key(id)
    at = at + 5 + tonumber(ARGV[at + 4])
  end
  if not push or #places == 0 or redis.call('EXISTS', unpack(looked_at)) > 0 then return nil end
  local replies, last_ones = {}, {}
  for i, place in ipairs(places) do
    local id = ARGV[place]
    if ARGV[place + 1] == '1' then redis.call('LPUSH', KEYS[2], id) else last_ones[#last_ones + 1] = id end
    replies[i] = 'queued'
  end
  if #last_ones > 0 then redis.call('RPUSH', KEYS[2], unpack(last_ones)) end
  redis.call('SADD', KEYS[1], KEYS[2])
  for i, place in ipairs(places) do
    store(looked_at[2 * i - 1], tonumber(ARGV[place + 2]), place + 5, place + 4 + tonumber(ARGV[place + 4]))
  end
  return replies
end

local stored = store_new_jobs()
if stored then return stored end

--- @include clock
--- @include registries
--- @include rate

local iso, now = ARGV[2], clock()
-- For the same reason: a look at one element, which fails if it is no list, and which producers have the right to.
redis.call('LPOS', KEYS[2], '', 'MAXLEN', 1)
redis.call('SADD', KEYS[1], KEYS[2])

local function met(options)
  for _, dependency in ipairs(options.dependencies or {}) do
    local status = redis.call('HGET', job_key(dependency), 'status')
    if status and status ~= 'finished' and not (status == 'failed' and options.allow_failure) then return false end
  end
  return true
end

local function defer(id, ttl, options)
  redis.call('HSET', job_key(id), 'status', 'deferred')
  redis.call('HDEL', job_key(id), 'enqueued_at')
  redis.call('ZADD', deferred_key(queue), now, id)
  for _, dependency in ipairs(options.dependencies) do
    redis.call('SADD', dependents_key(dependency), id)
    redis.call('SADD', dependencies_key(id), dependency)
  end
  if ttl then redis.call('EXPIRE', dependencies_key(id), ttl) end
  return 'deferred'
end

local function place(id, at_front, ttl, options)
  if options and not met(options) then return defer(id, ttl, options) end
  if options and options.rate_limit then
    redis.call('HDEL', job_key(id), 'enqueued_at')
    if at_front then redis.call('HSET', job_key(id), 'enqueue_at_front', '1') end
    return hold_back(id, options.rate_limit[1], tonumber(options.rate_limit[2]), now, iso)
  end
  if push then redis.call(at_front and 'LPUSH' or 'RPUSH', KEYS[2], id) end
  return 'queued'
end

local replies = {}
local at = first_job
while at <= total do
  local id, at_front, ttl, options = ARGV[at], ARGV[at + 1] == '1', tonumber(ARGV[at + 2]), ARGV[at + 3]
  local first = at + 5
  local last = first + tonumber(ARGV[at + 4]) - 1
  at = last + 1
  options = options ~= '' and cjson.decode(options) or nil
  local old = redis.call('HMGET', job_key(id), 'status', 'greenq_token', 'origin')
  local done = old[2] or (not old[1] and redis.call('GET', tombstone_key(id)))
  if done == token then
    replies[#replies + 1] = old[1] or 'queued'
  elseif options and options.unique and redis.call('EXISTS', job_key(id)) == 1 then
    replies[#replies + 1] = 'duplicate'
  else
    if old[1] then
      leave_registry(id, old[1], old[3] or queue)
      renew(id)
    end
    store(job_key(id), ttl, first, last)
    replies[#replies + 1] = place(id, at_front, ttl, options)
  end
end
return replies
