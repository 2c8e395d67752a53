#!lua flags=allow-oom
-- Compare-and-set. Told: origin, feed length, number of jobs (no id twice), and for each: id, expected version, when it
-- was finished. ARGV: the stored job of each. Answers the position in the feed (0 when nothing was written), which were
-- stored ("101…"), how many jobs are finished, and the size of all.

local origin, keep, n = unpack(input, 1, 3)

local keys = list('MGET')
for i = 1, n do
  add(keys, JOB .. input[1 + i * 3])
end
local olds = call(unpack(keys, 1, keys.n))

local documents = list('MSET')
local timed, untimed = list('ZADD', base .. 'due'), list('ZREM', base .. 'due')
local finished, restarted = list('ZADD', base .. 'finished'), list('ZREM', base .. 'finished')
local held, answers, changes, size = {}, {}, {}, 0
for i = 1, n do
  local old, at = olds[i], 1 + i * 3
  answers[i] = 0
  local version, was, was_ready, was_due, was_with, was_token, _
  if old then
    _, version, was, _, _, _, was_ready, was_due, was_with, was_token = unpack_limit(old, 9, HEAD)
  end
  local id, stored = input[at], ARGV[1 + i]
  local _, new_version, state, job_type, queue, priority, since, due, session, token = unpack_limit(stored, 9, HEAD)
  -- A failover that lost writes may have given the version again, to the claim of another worker: the token tells.
  if version == input[at + 1] and (was ~= RUNNING or token == was_token) then
    answers[i] = 1
    add_pair(documents, keys[1 + i], stored)
    if since then
      became_ready(job_type, queue)
      add_pair(lane_of(job_type, queue, priority).entering, since, id)
    elseif was_ready then
      add(lane_of(job_type, queue, priority).leaving, id)
    end
    if due then
      add_pair(timed, due, id)
    elseif was_due then
      add(untimed, id)
    end
    local stays = was == RUNNING and state == RUNNING and session == was_with
    if was == RUNNING and not stays then
      let_go(was_with, id)
    end
    if state == RUNNING and not stays then
      add_by(held, 'SADD', 'held:', session, id)
    end
    if state >= TERMINAL then
      add_pair(finished, input[at + 2], id)
    elseif was >= TERMINAL then
      add(restarted, id)
    end
    moved[was] = moved[was] - 1
    moved[state] = moved[state] + 1
    size = size + #stored - #old
    changes[#changes + 1] = id
    changes[#changes + 1] = new_version
  end
end

local head = 0
if #changes > 0 then
  call(unpack(documents, 1, documents.n))
  write_lanes()
  write(timed)
  write(untimed)
  write(finished)
  write(restarted)
  write_left()
  for session, gathered in pairs(held) do
    -- A session that holds jobs but is not open counts as expired (score 0), so that they are rescued.
    write(gathered)
    call('ZADD', base .. 'sessions', 'NX', 0, session)
  end
  write_counts(size)
  head = tell(origin, keep, changes)
end
local bytes = tonumber(call('HGET', base .. 'counts', 'size')) or 0
return {head, table.concat(answers), call('ZCARD', base .. 'finished'), bytes}
