#!lua flags=allow-oom
-- Compare-and-delete. Told: origin, feed length, number of jobs (no id twice), and for each: id, version, namespace, request
-- id. ARGV: the spec of each without its payload, which the feed tells. Answers the position in the feed (0 when nothing
-- was written) and which were deleted ("101…").

local origin, keep, n = unpack(input, 1, 3)

local keys = list('MGET')
for i = 1, n do
  add(keys, JOB .. input[i * 4])
end
local olds = call(unpack(keys, 1, keys.n))

local gone = list('UNLINK')
local OUT, LOG = base .. 'out:', base .. 'log:'
local untimed, unfinished = list('ZREM', base .. 'due'), list('ZREM', base .. 'finished')
local listed, named, answers, changes, size = {}, {}, {}, {}, 0
for i = 1, n do
  local old, at = olds[i], i * 4
  answers[i] = 0
  if old then
    local _, version, was, job_type, queue, priority, was_ready, was_due, was_with, _, _, _, _, _, _, rest =
      unpack_limit(old, HEAD_FIELDS, HEAD)
    if version == input[at + 1] then
      answers[i] = 1
      local id, namespace, request = input[at], input[at + 2], input[at + 3]
      add_pair(gone, keys[1 + i], SPEC .. id)
      add_pair(gone, OUT .. id, LOG .. id)
      add_by(listed, 'ZREM', 'list:', namespace, id)
      if request ~= '' and call('HGET', base .. 'names:' .. namespace, request) == id then
        add_by(named, 'HDEL', 'names:', namespace, request)
      end
      if was_ready then
        add(lane_of(job_type, queue, priority).leaving, id)
      end
      if was_due then
        add(untimed, id)
      end
      if was == RUNNING then
        let_go(was_with, id)
      elseif was >= TERMINAL then
        add(unfinished, id)
      end
      moved[was] = moved[was] - 1
      size = size - #old - rest
      changes[#changes + 1] = id
      changes[#changes + 1] = ARGV[1 + i]
    end
  end
end

local head = 0
if #changes > 0 then
  call(unpack(gone, 1, gone.n))
  write_all(listed)
  write_all(named)
  write_lanes()
  write(untimed)
  write(unfinished)
  write_left()
  write_counts(size)
  head = tell(origin, keep, changes)
end
return {head, table.concat(answers)}
