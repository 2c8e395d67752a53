#!lua flags=no-writes
-- What is due. Told: now, limit. Answers the ids, oldest first, and as the first of all when the next one will be.

local now, limit = input[1], input[2]
local first = call('ZRANGE', base .. 'due', 0, 0, 'WITHSCORES')
if not first[1] or tonumber(first[2]) > now then
  return {first[2] or ''}
end
local found = call('ZRANGE', base .. 'due', '-inf', exact(now), 'BYSCORE', 'LIMIT', 0, exact(limit))
local following = call('ZRANGE', base .. 'due', #found, #found, 'WITHSCORES')
table.insert(found, 1, following[2] or '')
return found
