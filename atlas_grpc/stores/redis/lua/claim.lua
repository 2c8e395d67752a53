#!lua flags=allow-oom
-- Hands ready jobs to a session: best priority first, then longest ready. Told: origin, feed length, session, worker, now,
-- limit, and the asks: {type, slots, queues or false}. Answers the position in the feed, what is left of the slots of each
-- ask, the first token, then id and new version of each; tokens follow one another. The state that was stored stays as it
-- is behind the new head; who reads it applies lifecycle.started.

local origin, keep, session, worker, now, limit, asks = unpack(input, 1, 7)

local expiry = call('ZSCORE', base .. 'sessions', session)
if not expiry or tonumber(expiry) <= now then
  return {0, {}, 0}
end

-- Every line that an ask may take from, best priority first.
local function all_lines()
  local lines = {}
  local function add_lines(ask, place)
    for _, priority in ipairs(call('ZREVRANGE', base .. 'prios:' .. place, 0, -1)) do
      lines[#lines + 1] = {
        ask = ask, place = place, priority = tonumber(priority), key = line_key(place, priority), read = 0, at = 1, page = {}
      }
    end
  end
  for ask, of in ipairs(asks) do
    if of[2] > 0 and of[3] then
      for _, queue in ipairs(of[3]) do
        add_lines(ask, queue_place(of[1], queue))
      end
    elseif of[2] > 0 then
      add_lines(ask, type_place(of[1]))
    end
  end
  table.sort(lines, function(a, b) return a.priority > b.priority end)
  return lines
end

local seen, slots = {}, {}
for ask, of in ipairs(asks) do
  slots[ask] = of[2]
end

local shortest = 16

-- The first entry of a line that no other line has given yet: a page at a time, so that many lines cost little each.
local function first(line)
  while true do
    local id = line.page[line.at]
    if not id then
      if line.over then
        return nil
      end
      local length = line.length or shortest
      line.page = call('ZRANGE', line.key, line.read, line.read + length - 1, 'WITHSCORES')
      line.at, line.read, line.length, line.over = 1, line.read + length, 16, #line.page < 2 * length
    elseif seen[id] then
      line.at = line.at + 2
    else
      return id, tonumber(line.page[line.at + 1])
    end
  end
end

-- A heap of lines by their first entries: what a job costs hardly grows with how many types and queues are asked for.
local heap, count = {}, 0

local function before(a, b)
  return a.since < b.since or (a.since == b.since and a.id < b.id)
end

local function push(line)
  line.id, line.since = first(line)
  if not line.id then
    return
  end
  count = count + 1
  local at = count
  while at > 1 do
    local above = (at - at % 2) / 2
    if not before(line, heap[above]) then
      break
    end
    heap[at], at = heap[above], above
  end
  heap[at] = line
end

local function pop()
  local top, last = heap[1], heap[count]
  heap[count], count = nil, count - 1
  local at = 1
  while 2 * at <= count do
    local below = 2 * at
    if below < count and before(heap[below + 1], heap[below]) then
      below = below + 1
    end
    if not before(heap[below], last) then
      break
    end
    heap[at], at = heap[below], below
  end
  if count > 0 then
    heap[at] = last
  end
  return top
end

-- Picks from several lines of one priority, longest ready first.
local function pick_from(lines, from, to, picked, of)
  shortest = math.min(16, math.ceil(limit / (to - from + 1)) + 1)
  for i = from, to do
    push(lines[i])
  end
  while count > 0 and #picked < limit do
    local line = pop()
    if slots[line.ask] > 0 then
      if not seen[line.id] then
        seen[line.id] = true
        slots[line.ask] = slots[line.ask] - 1
        picked[#picked + 1], of[#of + 1] = line.id, line
      end
      push(line)
    end
  end
  heap, count = {}, 0
end

local function pick()
  local lines, picked, of, from = all_lines(), {}, {}, 1
  if #lines == 1 then
    local line = lines[1]
    picked = call('ZRANGE', line.key, 0, math.min(limit, slots[line.ask]) - 1)
    slots[line.ask] = slots[line.ask] - #picked
    for i = 1, #picked do
      of[i] = line
    end
    return picked, of
  end
  while from <= #lines and #picked < limit do
    local to = from
    while to < #lines and lines[to + 1].priority == lines[from].priority do
      to = to + 1
    end
    pick_from(lines, from, to, picked, of)
    from = to + 1
  end
  return picked, of
end

-- Tokens grow by time, so that they also grow when a failover loses the last of them.
local fence = math.max((tonumber(call('GET', base .. 'fence')) or 0) + 1, now)
local owner, tail = pack(session), pack(nil, nil, worker, now)
local documents = list('MSET')
local held = list('SADD', base .. 'held:' .. session)
local timed, untimed = list('ZADD', base .. 'due'), list('ZREM', base .. 'due')
local changes, answer, size = {}, {0, slots, exact(fence)}, 0

-- A claim writes the head anew, in front of the state as it was. What does not change from job to job is packed once.
local packed = setmetatable({}, {__index = function(known, value)
  local bytes = pack(value)
  known[value] = bytes
  return bytes
end})
local NIL, STATE = pack(nil), pack(RUNNING)

local function claim(id, key, old)
  local doc, version, _, job_type, queue, priority, since, due, _, _, attempt, span, deadline, _, _, rest =
    unpack_limit(old, HEAD_FIELDS, HEAD)
  if not since then
    return false
  end
  local ends = deadline
  if span and not (ends and ends <= now + span) then
    ends = now + span
  end
  local due_packed = NIL
  if ends then
    local text = exact(ends)
    due_packed = pack(text)
    add_pair(timed, text, id)
  elseif due then
    add(untimed, id)
  end
  local stored = ARRAY .. packed[version + 1] .. STATE .. packed[job_type] .. packed[queue] .. packed[priority] .. NIL
    .. due_packed .. owner .. pack(fence) .. packed[attempt + 1] .. tail .. packed[rest] .. old:sub(doc + 1)
  fence = fence + 1
  size = size + #stored - #old
  add_pair(documents, key, stored)
  add(lane_of(job_type, queue, priority).leaving, id)
  add(held, id)
  changes[#changes + 1] = id
  changes[#changes + 1] = version + 1
  answer[#answer + 1] = id
  answer[#answer + 1] = version + 1
  return true
end

repeat
  local picked, of = pick()
  if #picked == 0 then
    return {0, slots, 0}
  end
  local keys = list('MGET')
  for _, id in ipairs(picked) do
    add(keys, JOB .. id)
  end
  for i, old in ipairs(call(unpack(keys, 1, keys.n))) do
    if not (old and claim(picked[i], keys[1 + i], old)) then
      -- A leftover, whose job is gone or not ready.
      local line = of[i]
      call('ZREM', line.key, picked[i])
      drop_empty_line(line.key, line.place, line.priority)
    end
  end
until #changes > 0

local n = #changes / 2
call('SET', base .. 'fence', exact(fence - 1))
call(unpack(documents, 1, documents.n))
write(held)
write_lanes()
write(timed)
write(untimed)
moved[PENDING], moved[RUNNING] = -n, n
write_counts(size)
answer[1] = tell(origin, keep, changes)
return answer
