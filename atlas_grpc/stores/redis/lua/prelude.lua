-- What the scripts share; it stands in front of each of them. All keys begin with KEYS[1], which is one hash tag.
-- ARGV[1] is a msgpack array with what the script is told; stored jobs and specs follow as ARGV[2..].
--
-- Most of what a script costs is not the commands but Lua around them: strings and tables made for each job. Hence flat
-- arrays, keys made once, and writes that are gathered so that a hundred jobs are written by a dozen commands.

local call, pack, unpack_limit = redis.call, cmsgpack.pack, cmsgpack.unpack_limit
local base = KEYS[1]
local JOB, SPEC = base .. 'job:', base .. 'spec:'
local input = cmsgpack.unpack(ARGV[1])

local PENDING, RUNNING, TERMINAL = 1, 2, 3

-- A stored job is an array: 15 fields that records.py explains, from the byte after HEAD on, and the state itself, which
-- scripts do not look at.
local ARRAY, HEAD, HEAD_FIELDS = '\220\0\16', 3, 15

-- How instants, tokens and positions are written: tostring() keeps only 14 digits.
local function exact(number)
  return string.format('%.0f', number)
end

-- A command with many members.
local function list(command, key)
  return {command, key, n = key and 2 or 1}
end

local function add(to, member)
  local n = to.n + 1
  to[n] = member
  to.n = n
end

local function add_pair(to, a, b)
  local n = to.n + 2
  to[n - 1] = a
  to[n] = b
  to.n = n
end

local function write(gathered)
  if gathered.n > 2 then
    call(unpack(gathered, 1, gathered.n))
  end
end

-- The same command for several keys, by what follows in the key.
local function add_by(lists, command, key, rest, a, b)
  local to = lists[rest]
  if not to then
    to = list(command, base .. key .. rest)
    lists[rest] = to
  end
  add(to, a)
  if b then
    add(to, b)
  end
end

local function write_all(lists)
  for _, gathered in pairs(lists) do
    write(gathered)
  end
end

-- A line holds the ready jobs of one priority, longest ready first. Every ready job stands in two: that of its type, and
-- that of its type and queue. A place (type, or type and queue) knows the priorities of its lines that are not empty.
local function type_place(job_type)
  return 't:' .. job_type
end

local function queue_place(job_type, queue)
  return 'q:' .. #job_type .. ':' .. job_type .. ':' .. queue
end

local function line_key(place, priority)
  return base .. 'ready:' .. priority .. ':' .. place
end

-- A lane: both lines of a type, queue and priority.
local lanes, all_lanes = {}, {}
local function lane_of(job_type, queue, priority)
  local by_queue = lanes[job_type]
  if not by_queue then
    by_queue = {}
    lanes[job_type] = by_queue
  end
  local by_priority = by_queue[queue]
  if not by_priority then
    by_priority = {}
    by_queue[queue] = by_priority
  end
  local lane = by_priority[priority]
  if not lane then
    local one, other = type_place(job_type), queue_place(job_type, queue)
    lane = {
      priority = priority, places = {one, other}, keys = {line_key(one, priority), line_key(other, priority)},
      entering = list('ZADD', ''), leaving = list('ZREM', '')
    }
    by_priority[priority] = lane
    all_lanes[#all_lanes + 1] = lane
  end
  return lane
end

local function drop_empty_line(key, place, priority)
  if call('EXISTS', key) == 0 then
    call('ZREM', base .. 'prios:' .. place, priority)
    if place:sub(1, 1) == 'q' and call('EXISTS', base .. 'prios:' .. place) == 0 then
      call('SREM', base .. 'places', place)
    end
  end
end

local function write_lanes()
  for _, lane in ipairs(all_lanes) do
    local entering, leaving = lane.entering, lane.leaving
    for i, key in ipairs(lane.keys) do
      if entering.n > 2 then
        entering[2] = key
        write(entering)
        call('ZADD', base .. 'prios:' .. lane.places[i], lane.priority, lane.priority)
      end
      if leaving.n > 2 then
        leaving[2] = key
        write(leaving)
        drop_empty_line(key, lane.places[i], lane.priority)
      end
    end
    if entering.n > 2 then
      call('SADD', base .. 'places', lane.places[2])
    end
  end
end

-- Jobs that a session runs no longer. One that was closed and holds none any more is forgotten.
local left = {}
local function let_go(session, id)
  add_by(left, 'SREM', 'held:', session, id)
end

local function write_left()
  for session, gathered in pairs(left) do
    write(gathered)
    if call('EXISTS', base .. 'held:' .. session) == 0 then
      local expiry = call('ZSCORE', base .. 'sessions', session)
      if expiry and tonumber(expiry) == 0 then
        call('ZREM', base .. 'sessions', session)
      end
    end
  end
end

-- How many jobs there are by state, and about how many bytes they take.
local moved = {0, 0, 0, 0, 0}
local function write_counts(size)
  for state, by in ipairs(moved) do
    if by ~= 0 then
      call('HINCRBY', base .. 'counts', state, by)
    end
  end
  call('HINCRBY', base .. 'counts', 'size', exact(size))
end

-- Of which kinds jobs became ready, for those who wait for some.
local kinds, known_kinds = {}, {}
local function became_ready(job_type, queue)
  local known = known_kinds[job_type]
  if not known then
    known = {}
    known_kinds[job_type] = known
  end
  if not known[queue] then
    known[queue] = true
    kinds[#kinds + 1] = {job_type, queue}
  end
end

-- The feed: one entry tells all changes of a script, and its id is the number of the last of them. `changes` is a flat
-- list: id and version of a job that changed, id and spec of one that was deleted. Others are given the ids at once.
local function tell(origin, keep, changes)
  local entry, ids = pack({origin, changes}), {}
  for i = 1, #changes, 2 do
    ids[(i + 1) / 2] = changes[i]
  end
  local head = call('INCRBY', base .. 'head', #ids)
  local function append()
    local oldest = exact(math.max(head - keep, 0))
    return redis.pcall('XADD', base .. 'feed', 'MINID', '~', oldest, exact(head) .. '-0', 'e', entry)
  end
  local answer = append()
  if type(answer) == 'table' and answer.err and answer.err:find('equal or smaller', 1, true) then
    -- The counter was put back, by whomever: the feed itself knows better.
    local last = call('XREVRANGE', base .. 'feed', '+', '-', 'COUNT', 1)[1]
    head = tonumber(last[1]:match('^%d+')) + #ids
    call('SET', base .. 'head', exact(head))
    answer = append()
  end
  if type(answer) == 'table' and answer.err then
    error(answer.err)
  end
  call('PUBLISH', base .. 'news', pack({0, origin, #kinds > 0 and kinds, head, ids}))
  return head
end
