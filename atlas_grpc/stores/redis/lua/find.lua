#!lua flags=no-writes
-- A part of a namespace's listing, newest first. Told: namespace, after (or false), how many to look at, and the states,
-- types and queues that are wanted, each a set {[value] = true} or false. Answers the last id looked at ('' at the end of
-- the listing), then spec and stored job of each that fits.

local namespace, after, limit, states, types, queues = unpack(input, 1, 6)
local ids = call('ZRANGE', base .. 'list:' .. namespace, after and '(' .. after or '+', '-', 'BYLEX', 'REV', 'LIMIT', 0, limit)
if #ids == 0 then
  return {''}
end
local keys = {}
for i, id in ipairs(ids) do
  keys[i] = JOB .. id
end
local specs, jobs = {}, {}
for i, job in ipairs(call('MGET', unpack(keys))) do
  if job then
    local _, _, state, job_type, queue = unpack_limit(job, 4, HEAD)
    if (not states or states[state]) and (not types or types[job_type]) and (not queues or queues[queue]) then
      specs[#specs + 1] = SPEC .. ids[i]
      jobs[#jobs + 1] = job
    end
  end
end
local answer = {#ids < limit and '' or ids[#ids]}
if #jobs > 0 then
  for i, spec in ipairs(call('MGET', unpack(specs))) do
    answer[i * 2], answer[i * 2 + 1] = spec, jobs[i]
  end
end
return answer
