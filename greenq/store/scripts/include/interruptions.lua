--- @include text

-- The interruptions of a job since it last ran to its end, the latest last, as its hash has them, without
-- those that cannot be read: damage to a note must not keep a job from being recovered.
local function interruptions_of(stored)
  local is_readable, found = pcall(cjson.decode, stored or '[]')
  local history = {}
  for _, note in ipairs(is_readable and type(found) == 'table' and found or {}) do
    if type(note) == 'table' then history[#history + 1] = note end
  end
  return history
end

-- Whether there are too many of them: `limit` that count, or `innocent_limit` that do not, which still must not go on
-- for ever.
local function is_too_many(history, limit, innocent_limit)
  local counted = 0
  for _, note in ipairs(history) do
    if not note.innocent then counted = counted + 1 end
  end
  return counted >= limit or #history - counted >= innocent_limit
end

-- What interrupted the job, each cause with how often it did.
local function causes_of(history)
  local counts, causes = {}, {}
  for _, note in ipairs(history) do
    local cause = note.cause or 'unknown'
    if not counts[cause] then causes[#causes + 1] = cause end
    counts[cause] = (counts[cause] or 0) + 1
  end
  for i, cause in ipairs(causes) do causes[i] = counts[cause] .. 'x ' .. cause end
  return table.concat(causes, ', ')
end

-- A template of a poison job's reason, filled in and encoded.
local function reason_of(template, history)
  local values = { count = tostring(#history), causes = causes_of(history) }
  return encode_text((string.gsub(template, '{(%l+)}', values)))
end
