-- Progress and log lines of running attempts. Told: origin, most lines and most bytes kept of a log, number of reports,
-- and for each: job, token, progress (0 for none, else the number of its ARGV), number of lines, the first one's ARGV.
-- A line is the tail of a msgpack array: the attempt goes in front here. Answers which were running ("101…").

local origin, most_lines, most_bytes, n = unpack(input, 1, 4)
local STRIDE, FIRST = 5, 5
local LINE_OVERHEAD = 100

local keys = {}
for i = 0, n - 1 do
  keys[i + 1] = JOB .. input[FIRST + i * STRIDE]
end
local jobs = call('MGET', unpack(keys))

local function append(id, attempt, from, lines)
  local out, log = base .. 'out:' .. id, base .. 'log:' .. id
  local kept = call('HMGET', out, 'end', 'bytes')
  local last, bytes = tonumber(kept[1]) or 0, tonumber(kept[2]) or 0
  local added = {'RPUSH', log}
  local in_front = '\148' .. pack(attempt)
  for j = 0, lines - 1 do
    local line = in_front .. ARGV[from + j]
    added[j + 3] = line
    bytes = bytes + #line + LINE_OVERHEAD
  end
  last = last + lines
  call('HSET', out, 'end', exact(last))
  local length = call(unpack(added))
  while length > 0 and (length > most_lines or bytes > most_bytes) do
    bytes = bytes - #call('LPOP', log) - LINE_OVERHEAD
    length = length - 1
  end
  call('HSET', out, 'bytes', exact(bytes), 'start', exact(last - length))
end

local answers, told = {}, {}
for i = 0, n - 1 do
  local at = FIRST + i * STRIDE
  local id, progress, lines = input[at], input[at + 2], input[at + 3]
  answers[i + 1] = 0
  if jobs[i + 1] then
    local _, _, state, _, _, _, _, _, _, fence, attempt = unpack_limit(jobs[i + 1], 10, HEAD)
    if state == RUNNING and fence == input[at + 1] then
      answers[i + 1] = 1
      told[#told + 1] = id
      if progress > 0 then
        call('HSET', base .. 'out:' .. id, 'progress', ARGV[progress])
      end
      if lines > 0 then
        append(id, attempt, input[at + 4], lines)
      end
    end
  end
end
if #told > 0 then
  call('PUBLISH', base .. 'news', pack({1, origin, false, 0, told}))
end
return table.concat(answers)
