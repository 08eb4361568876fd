-- Takes up to `count` jobs for a worker: what was parked for it first, then from its queues in the order given. Fewer
-- when their hashes come to more than LARGEST_REPLY together: a server writes 64 KiB at a time and then turns to the
-- next client, so that the rest of a longer reply would have to wait for somebody's script.
-- Popping, status, execution and lease are one step, so a job is never between two places.
-- KEYS: suspended flag, the worker's parked list, worker hash
-- ARGV: worker name, now (ISO; '' for a standing claim), now (epoch; for a standing claim how far the worker's clock is
--       ahead of this one, s), lifetime of the started entry (s), lease of a worker without one (ms),
--       count, repeat ('1' or '0'), record ('1' writes RQ's record of each execution now, '0' leaves it to a beat),
--       `count` fresh execution ids with a space between each, queue names...
-- Returns {{id, place of its execution id, queue, hash as a flat list}, ...}, or the string suspended. Ids without a hash and
-- canceled jobs are dropped on the way. The execution ids are the idempotence token: with repeat set, what an earlier
-- try with the same ids took, and whose reply was lost, is returned first.
-- A standing claim was sent behind the call that waits for work, some time ago: it takes nothing unless something is
-- parked, and tells the time. It returns {now (epoch), how many ids it took from the parked list, the list as above}, an
-- empty list, or the string suspended.
--- @include clock
--- @include start
--- @include record
--- @include lease
--- @include iso

local worker, iso, epoch, lifetime = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local lease = tonumber(ARGV[5])
local count, is_repeat, with_record = tonumber(ARGV[6]), ARGV[7] == '1', ARGV[8] == '1'
local first_queue = 10
local claimed, used = {}, {}
local now, exact = 0, 0
local is_standing = iso == ''

if is_standing then
  if redis.call('LLEN', KEYS[2]) == 0 then return {} end
  now, exact = clock()
  iso, epoch = iso_of(exact + tonumber(epoch)), string.format('%.6f', exact + tonumber(epoch))
end

local LARGEST_REPLY = 60000
-- What a hash takes in a reply, without the fields that may be long.
local HASH_BYTES = 570
local LONG_FIELDS = { data = true, description = true, meta = true }
-- So many are popped before the length is looked at again.
local STEP = 20
local reply_bytes = 0

-- A key that is no hash counts as a missing job: an error here would lose all that was popped with it.
local function hash_of(id)
  local flat = redis.pcall('HGETALL', job_key(id))
  if flat.err then return {} end
  local status, origin, may_expire
  for i = 1, #flat, 2 do
    local field = flat[i]
    if field == 'status' then
      status = flat[i + 1]
    elseif field == 'origin' then
      origin = flat[i + 1]
    elseif LONG_FIELDS[field] then
      reply_bytes = reply_bytes + #flat[i + 1]
    elseif field == 'ttl' or (field == 'worker_name' and flat[i + 1] ~= '') then
      -- A ttl of its own, or that of an earlier end: RQ requeues a job without lifting it.
      may_expire = true
    end
  end
  reply_bytes = reply_bytes + HASH_BYTES
  return flat, status, origin, may_expire
end

local function recall_earlier_try()
  local mine, place = {}, 0
  for execution in string.gmatch(ARGV[9], '%S+') do
    place = place + 1
    mine[execution] = place
  end
  for _, composite in ipairs(redis.call('SMEMBERS', held_key(worker))) do
    local id, execution = string.match(composite, '^(.*):([^:]*)$')
    if mine[execution] then
      local flat, _, origin = hash_of(id)
      used[execution] = true
      if origin and redis.call('ZSCORE', started_key(origin), composite) then
        claimed[#claimed + 1] = { id, mine[execution], origin, flat }
      end
    end
  end
end

if is_repeat then recall_earlier_try() end
if redis.call('EXISTS', KEYS[1]) == 1 then
  return #claimed > 0 and claimed or 'suspended'
end

if not is_standing then now = clock() end
local place, next_execution = 0, string.gmatch(ARGV[9], '%S+')
local started, composites = {}, {}

-- The registries are those of the job's origin, where every other script looks for it; a hash without one gets it.
local function start(id, queue)
  local flat, status, origin, may_expire = hash_of(id)
  if #flat == 0 or status == 'canceled' then return end
  if not origin or origin == '' then redis.call('HSET', job_key(id), 'origin', queue or ARGV[first_queue]) end
  queue = (origin ~= '' and origin) or queue or ARGV[first_queue]
  local execution
  repeat
    place, execution = place + 1, next_execution()
  until not used[execution]
  local composite = start_job(id, execution, worker, iso, may_expire)
  if with_record then record_execution(id, execution, worker, epoch, epoch, now, lifetime) end
  local entries = started[queue] or {}
  started[queue] = entries
  entries[#entries + 1] = now + lifetime
  entries[#entries + 1] = composite
  composites[#composites + 1] = composite
  claimed[#claimed + 1] = { id, place, queue, flat }
end

-- Returns how many ids it took, of which some may be no jobs.
local function take_from(key, queue)
  local taken = 0
  while #claimed < count and reply_bytes < LARGEST_REPLY do
    local ids = redis.call('LPOP', key, math.min(count - #claimed, STEP))
    if not ids then break end
    taken = taken + #ids
    for _, id in ipairs(ids) do start(id, queue) end
  end
  return taken
end

local unparked = take_from(KEYS[2], nil)
for i = first_queue, #ARGV do take_from(queue_key(ARGV[i]), ARGV[i]) end

if #composites > 0 then
  ensure_lease(worker, lease, now)
  for queue, entries in pairs(started) do redis.call('ZADD', started_key(queue), unpack(entries)) end
  redis.call('SADD', held_key(worker), unpack(composites))
  if with_record then
    redis.call('SADD', worker_executions_key(worker), unpack(composites))
    redis.call('EXPIRE', worker_executions_key(worker), lifetime + 60)
  end
  if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('HSET', KEYS[3], 'state', 'busy') end
end
return is_standing and { string.format('%.6f', exact), unparked, claimed } or claimed
