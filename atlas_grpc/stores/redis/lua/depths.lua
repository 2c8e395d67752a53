#!lua flags=no-writes
-- How many jobs are ready in places, and since when the first of them. Told: places. Answers depth and instant of each.

local answer = {}
for _, place in ipairs(input) do
  local depth, oldest = 0, nil
  for _, priority in ipairs(call('ZRANGE', base .. 'prios:' .. place, 0, -1)) do
    local key = line_key(place, priority)
    local first = call('ZRANGE', key, 0, 0, 'WITHSCORES')
    if first[2] then
      depth = depth + call('ZCARD', key)
      oldest = math.min(oldest or math.huge, tonumber(first[2]))
    end
  end
  answer[#answer + 1] = depth
  answer[#answer + 1] = exact(oldest or 0)
end
return answer
