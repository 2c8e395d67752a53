#!lua flags=no-writes
-- How many ready jobs of a type come before one. Told: type, priority, ready since, id.

local job_type, priority, since, id = unpack(input, 1, 4)
local place, found = type_place(job_type), 0
for _, other in ipairs(call('ZRANGE', base .. 'prios:' .. place, 0, -1)) do
  local key = line_key(place, other)
  if tonumber(other) > priority then
    found = found + call('ZCARD', key)
  elseif tonumber(other) == priority then
    local rank = call('ZRANK', key, id)
    found = found + (rank or call('ZCOUNT', key, '-inf', '(' .. exact(since)))
  end
end
return found
