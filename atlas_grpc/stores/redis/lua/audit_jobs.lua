#!lua flags=allow-oom
-- Puts right what the indexes say about jobs. Told for each: id, namespace and request id, or false when its spec is not
-- there. Answers what was repaired: kind, number, kind, number …

local found, lost = {}, 0
local function note(kind)
  found[kind] = (found[kind] or 0) + 1
end

local function should_be(kind, key, id, score)
  local there = call('ZSCORE', key, id)
  if score and (not there or tonumber(there) ~= tonumber(score)) then
    call('ZADD', key, score, id)
    note(kind)
  elseif there and not score then
    call('ZREM', key, id)
    note(kind)
  end
end

local function check_line(key, place, priority, id, since)
  should_be('ready', key, id, since)
  if since then
    if call('ZADD', base .. 'prios:' .. place, priority, priority) > 0 then
      note('place')
    end
  else
    drop_empty_line(key, place, priority)
  end
end

local function check(id, namespace, request, job)
  local _, _, state, job_type, queue, priority, since, due, session, fence = unpack_limit(job, 9, HEAD)
  should_be('listing', base .. 'list:' .. namespace, id, 0)
  if request ~= '' then
    local names = base .. 'names:' .. namespace
    local named = call('HGET', names, request)
    if not named or (named ~= id and call('EXISTS', JOB .. named) == 0) then
      call('HSET', names, request, id)
      note('name')
    elseif named ~= id then
      note('name taken')
    end
  end
  local lane = lane_of(job_type, queue, priority)
  for i, key in ipairs(lane.keys) do
    check_line(key, lane.places[i], priority, id, since)
  end
  if since and call('SADD', base .. 'places', lane.places[2]) > 0 then
    note('place')
  end
  should_be('due', base .. 'due', id, due)
  if (state >= TERMINAL) ~= (call('ZSCORE', base .. 'finished', id) and true or false) then
    should_be('finished', base .. 'finished', id, state >= TERMINAL and (due or 0))
  end
  if state == RUNNING then
    if call('SADD', base .. 'held:' .. session, id) > 0 then
      note('held')
    end
    if call('ZADD', base .. 'sessions', 'NX', 0, session) > 0 then
      note('session')
    end
  end
  if type(fence) == 'number' and (tonumber(call('GET', base .. 'fence')) or 0) < fence then
    call('SET', base .. 'fence', exact(fence))
    note('fence')
  end
end

local function remove_rest(id, spec, job)
  note(job and 'job without spec' or 'spec without job')
  if job then
    local _, _, state, job_type, queue, priority, since, _, session, _, _, _, _, _, _, size =
      unpack_limit(job, HEAD_FIELDS, HEAD)
    if since then
      add(lane_of(job_type, queue, priority).leaving, id)
    end
    if state == RUNNING then
      let_go(session, id)
    end
    moved[state] = moved[state] - 1
    lost = lost + #job + size
  end
  call('ZREM', base .. 'due', id)
  call('ZREM', base .. 'finished', id)
  call('UNLINK', SPEC .. id, JOB .. id, base .. 'out:' .. id, base .. 'log:' .. id)
end

for i = 1, #input, 3 do
  local id, namespace, request = input[i], input[i + 1], input[i + 2]
  local job = call('GET', JOB .. id)
  local spec = call('EXISTS', SPEC .. id) == 1
  if job and spec and namespace then
    check(id, namespace, request, job)
  elseif (job or spec) and not (job and spec) then
    remove_rest(id, spec, job)
  elseif not job then
    if call('ZREM', base .. 'due', id) + call('ZREM', base .. 'finished', id) > 0 then
      note('entry')
    end
  end
end
write_lanes()
write_left()
if lost > 0 then
  write_counts(-lost)
end

local answer = {}
for kind, number in pairs(found) do
  answer[#answer + 1] = kind
  answer[#answer + 1] = number
end
return answer
