#!lua flags=allow-oom
-- Recounts. Told: the position in the feed when the count began; namespace and after which id, for the next part of it;
-- what was counted so far by state, and the size; whether this is the end. Answers {-1} when something was written
-- meanwhile, {last id, states 1 to 5, size} for a part, {number of counters put right} at the end.

local began, namespace, after, over = unpack(input, 1, 4)
local head = tonumber(call('GET', base .. 'head')) or 0
if head ~= began then
  return {-1}
end
if over then
  local wrong = 0
  for what, number in pairs(over) do
    if (tonumber(call('HGET', base .. 'counts', what)) or 0) ~= number then
      call('HSET', base .. 'counts', what, exact(number))
      wrong = wrong + 1
    end
  end
  local last = call('XREVRANGE', base .. 'feed', '+', '-', 'COUNT', 1)[1]
  if last and tonumber(last[1]:match('^%d+')) > head then
    call('SET', base .. 'head', last[1]:match('^%d+'))
    wrong = wrong + 1
  end
  return {wrong}
end
local ids = call('ZRANGE', base .. 'list:' .. namespace, '(' .. after, '+', 'BYLEX', 'LIMIT', 0, 200)
local answer = {ids[#ids] or '', 0, 0, 0, 0, 0, 0}
local keys = {}
for i, id in ipairs(ids) do
  keys[i] = JOB .. id
end
for _, job in ipairs(#ids > 0 and call('MGET', unpack(keys)) or {}) do
  if job then
    local _, _, state, _, _, _, _, _, _, _, _, _, _, _, _, size = unpack_limit(job, HEAD_FIELDS, HEAD)
    answer[1 + state] = answer[1 + state] + 1
    answer[7] = answer[7] + #job + size
  end
end
return answer
