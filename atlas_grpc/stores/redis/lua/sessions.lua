#!lua flags=no-writes
-- Sessions that are not over. Told: now. Answers each, and what its worker tells of itself.

local found = call('ZRANGE', base .. 'sessions', '(' .. exact(input[1]), '+inf', 'BYSCORE')
local answer = {}
for i, session in ipairs(found) do
  answer[i * 2 - 1] = session
  answer[i * 2] = call('GET', base .. 'info:' .. session) or ''
end
return answer
