#!lua flags=allow-oom
-- Drops entries of an index that no job stands for. Told: which index, the rest of its key, and entries. Answers how many
-- were dropped.

local index, rest = input[1], input[2]
local key = base .. index .. ':' .. rest
if rest == '' then
  key = base .. index
end

local function head_of(id)
  local job = call('GET', JOB .. id)
  if job then
    local _, version, state, job_type, queue, priority, since, due, session = unpack_limit(job, 8, HEAD)
    return {state = state, type = job_type, queue = queue, priority = priority, since = since, due = due, session = session}
  end
end

local belongs = {
  list = function(job) return job end,
  due = function(job) return job and job.due end,
  finished = function(job) return job and job.state >= TERMINAL end,
  held = function(job) return job and job.state == RUNNING and job.session == rest end,
  ready = function(job)
    if not (job and job.since) then
      return false
    end
    local lane = lane_of(job.type, job.queue, job.priority)
    return key == lane.keys[1] or key == lane.keys[2]
  end,
  out = function(job) return job end,
  log = function(job) return job end,
}

local dropped = 0
for i = 3, #input do
  local entry = input[i]
  if index == 'names' then
    local id = call('HGET', key, entry)
    if id and call('EXISTS', JOB .. id) == 0 then
      dropped = dropped + call('HDEL', key, entry)
    end
  elseif index == 'prios' then
    if call('EXISTS', line_key(rest, entry)) == 0 then
      dropped = dropped + call('ZREM', key, entry)
      if call('EXISTS', key) == 0 then
        call('SREM', base .. 'places', rest)
      end
    end
  elseif index == 'places' then
    if call('EXISTS', base .. 'prios:' .. entry) == 0 then
      dropped = dropped + call('SREM', key, entry)
    end
  elseif index == 'sessions' then
    -- Of a session that is closed and holds nothing any more.
    if tonumber(call('ZSCORE', key, entry) or 1) == 0 and call('EXISTS', base .. 'held:' .. entry) == 0 then
      dropped = dropped + call('ZREM', key, entry)
    end
  elseif index == 'info' then
    if not call('ZSCORE', base .. 'sessions', entry) then
      dropped = dropped + call('UNLINK', base .. 'info:' .. entry)
    end
  elseif not belongs[index](head_of(entry)) then
    if index == 'held' then
      dropped = dropped + call('SREM', key, entry)
    elseif index == 'out' or index == 'log' then
      dropped = dropped + call('UNLINK', base .. index .. ':' .. entry)
    else
      dropped = dropped + call('ZREM', key, entry)
    end
  end
end
if index == 'ready' and dropped > 0 then
  local priority, place = rest:match('^(-?%d+):(.*)$')
  drop_empty_line(key, place, priority)
end
return dropped
