#!lua flags=no-writes
-- A part of the feed. Told: after which change, how many. Answers {-1} when what follows is no longer kept; else the
-- number of the last change looked at, then for each that is still the latest of its job: spec and stored job, or spec
-- and '' when the job was deleted.

local after, limit = input[1], input[2]
local head = tonumber(call('GET', base .. 'head')) or 0
if after > head then
  return {-1}
end
if after == head then
  return {after}
end
local oldest = call('XRANGE', base .. 'feed', '-', '+', 'COUNT', 1)[1]
local entries = call('XRANGE', base .. 'feed', exact(after + 1) .. '-0', '+', 'COUNT', math.min(limit, 32))

local function read(entry)
  local last = tonumber(entry[1]:match('^%d+'))
  local changes = cmsgpack.unpack(entry[2][2])[2]
  return last - #changes / 2, last, changes
end

if not oldest or after < (read(oldest)) then
  return {-1}
end

local told, keys, at = {}, {}, after
for _, entry in ipairs(entries) do
  local before, last, changes = read(entry)
  for i = math.max(at - before, 0) * 2 + 1, #changes, 2 do
    if at - after >= limit then
      break
    end
    at = before + (i + 1) / 2
    told[#told + 1] = {changes[i], changes[i + 1]}
    keys[#keys + 1] = base .. 'spec:' .. changes[i]
    keys[#keys + 1] = base .. 'job:' .. changes[i]
  end
end
local found = call('MGET', unpack(keys))
local answer = {at}
for i, change in ipairs(told) do
  local spec, job = found[i * 2 - 1], found[i * 2]
  if type(change[2]) == 'string' then
    answer[#answer + 1] = change[2]
    answer[#answer + 1] = ''
  elseif spec and job then
    local _, version = unpack_limit(job, 1, HEAD)
    if version == change[2] then
      answer[#answer + 1] = spec
      answer[#answer + 1] = job
    end
  end
end
return answer
