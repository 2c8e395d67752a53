#!lua flags=allow-oom
-- Extends sessions that are not over. Told: now, until when, sessions. Answers which were ("101…").

local now, till = input[1], input[2]
local answers = {}
for i = 3, #input do
  local expiry = call('ZSCORE', base .. 'sessions', input[i])
  answers[i - 2] = 0
  if expiry and tonumber(expiry) > now then
    answers[i - 2] = 1
    call('ZADD', base .. 'sessions', till, input[i])
  end
end
return table.concat(answers)
