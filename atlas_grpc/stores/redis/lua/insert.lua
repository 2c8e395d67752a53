-- Inserts jobs, or answers what their request ids already name.
-- Told: origin, feed length, how many unfinished jobs and bytes there may be, whether to leave a trace in any case, and
-- for each job: id, namespace, request id. ARGV: spec and stored job of each. Answers the position in the feed, then for
-- each: -1 inserted, -2 full, n as the n-th of this call, or {spec, stored job} that was there.

local origin, keep, most_jobs, most_bytes, trace, n = unpack(input, 1, 6)
local answers = {}

-- A name whose job is not there is free: something was lost, and what is said about it now heals it.
local function there(id)
  local found = call('MGET', SPEC .. id, JOB .. id)
  return found[1] and found[2] and found or nil
end

local asked, names, own = {}, {}, {}
for i = 1, n do
  local at = 4 + i * 3
  local id, namespace, request = input[at], input[at + 1], input[at + 2]
  own[i] = JOB .. id
  if request ~= '' then
    add_by(asked, 'HMGET', 'names:', namespace, request)
    local numbers = names[namespace]
    if not numbers then
      numbers = {}
      names[namespace] = numbers
    end
    numbers[#numbers + 1] = i
  end
end
for namespace, numbers in pairs(names) do
  local ids = call(unpack(asked[namespace]))
  for j, i in ipairs(numbers) do
    if ids[j] then
      answers[i + 1] = there(ids[j])
    end
  end
end

-- Ids are never drawn twice, but a call may be repeated whose answer was lost.
if call('EXISTS', unpack(own)) > 0 then
  for i = 1, n do
    answers[i + 1] = answers[i + 1] or there(input[4 + i * 3])
  end
end

local counts = call('HMGET', base .. 'counts', PENDING, RUNNING, 'size')
local jobs_left = most_jobs - (tonumber(counts[1]) or 0) - (tonumber(counts[2]) or 0)
local bytes_left = most_bytes - (tonumber(counts[3]) or 0)
local documents, listed, named, timers = list('MSET'), {}, {}, list('ZADD', base .. 'due')
local changes, size, fresh = {}, 0, {}
for i = 1, n do
  if not answers[i + 1] then
    local at = 4 + i * 3
    local id, namespace, request = input[at], input[at + 1], input[at + 2]
    local spec, stored = ARGV[i * 2], ARGV[i * 2 + 1]
    local known = request ~= '' and fresh[namespace] and fresh[namespace][request]
    local _, version, _, job_type, queue, priority, since, due, _, _, _, _, _, _, _, rest =
      unpack_limit(stored, HEAD_FIELDS, HEAD)
    local bytes = rest + #stored
    if known then
      answers[i + 1] = known
    elseif jobs_left <= 0 or bytes > bytes_left then
      answers[i + 1] = -2
    else
      answers[i + 1] = -1
      jobs_left, bytes_left, size = jobs_left - 1, bytes_left - bytes, size + bytes
      add_pair(documents, SPEC .. id, spec)
      add_pair(documents, own[i], stored)
      add_by(listed, 'ZADD', 'list:', namespace, '0', id)
      if request ~= '' then
        add_by(named, 'HSET', 'names:', namespace, request, id)
        fresh[namespace] = fresh[namespace] or {}
        fresh[namespace][request] = i - 1
      end
      if since then
        became_ready(job_type, queue)
        add_pair(lane_of(job_type, queue, priority).entering, since, id)
      end
      if due then
        add_pair(timers, due, id)
      end
      changes[#changes + 1] = id
      changes[#changes + 1] = version
    end
  end
end

answers[1] = 0
if #changes == 0 then
  if trace then
    call('INCRBY', base .. 'head', 0)
  end
  return answers
end

-- The first write: when memory is short it is refused, and nothing has happened.
local written = redis.pcall(unpack(documents, 1, documents.n))
if written.err then
  if not written.err:find('OOM command not allowed', 1, true) then
    return written
  end
  for i = 2, n + 1 do
    if type(answers[i]) == 'number' then
      answers[i] = -2
    end
  end
  return answers
end
write_all(listed)
write_all(named)
write(timers)
write_lanes()
moved[PENDING] = #changes / 2
write_counts(size)
answers[1] = tell(origin, keep, changes)
return answers
