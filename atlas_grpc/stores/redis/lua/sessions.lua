#!lua flags=no-writes
-- Sessions that are not over. Told: now. Answers each, and what its worker tells of itself.

local AT_ONCE = 1000

local found = call('ZRANGE', base .. 'sessions', '(' .. exact(input[1]), '+inf', 'BYSCORE')
local answer = {}
for from = 1, #found, AT_ONCE do
  local keys = list('MGET')
  for i = from, math.min(from + AT_ONCE - 1, #found) do
    add(keys, base .. 'info:' .. found[i])
  end
  for i, info in ipairs(call(unpack(keys, 1, keys.n))) do
    answer[#answer + 1] = found[from + i - 1]
    answer[#answer + 1] = info or ''
  end
end
return answer
