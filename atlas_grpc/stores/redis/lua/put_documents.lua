-- Stores documents. Told: the kind, how many there may be of it, whether to leave a trace in any case, the keys. ARGV: the
-- documents. Answers 1, or 0 when there would be too many.
--
-- Without flags: while memory is short, those that are there already may still be put. The first write is refused then, or
-- none.

local kind, most, trace = unpack(input, 1, 3)
local key = base .. 'docs:' .. kind
local AT_ONCE = 1000

local changed, new = {}, 0
for i = 4, #input do
  local name, document = input[i], ARGV[i - 2]
  local known = call('HGET', key, name)
  if known ~= document then
    changed[#changed + 1] = name
    changed[#changed + 1] = document
    new = new + (known and 0 or 1)
  end
end
if new > 0 and call('HLEN', key) + new > most then
  return 0
end
for from = 1, #changed, 2 * AT_ONCE do
  call('HSET', key, unpack(changed, from, math.min(from + 2 * AT_ONCE - 1, #changed)))
end
if trace and #changed == 0 then
  call('INCRBY', base .. 'head', 0)
end
return 1
