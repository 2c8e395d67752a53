#!lua flags=allow-oom
-- A store object has come to this server (again). Told: the server's run id, whether it kept every acknowledged write if
-- it is another process than before, an epoch to use if it did not, and the last entry of the feed that this object knows
-- of: its number (or 0) and its origin. Answers the epoch and the number of the last change.

local run, complete, fresh, known, origin = unpack(input, 1, 5)
local key, feed = base .. 'server', base .. 'feed'
local before = call('HMGET', key, 'epoch', 'run')
local head = tonumber(call('GET', base .. 'head')) or 0
local epoch = before[1]

local function forgotten()
  if not epoch or (before[2] ~= run and not complete) or head < known then
    return true
  end
  local entry = known > 0 and call('XRANGE', feed, exact(known) .. '-0', exact(known) .. '-0')[1]
  if entry then
    return cmsgpack.unpack(entry[2][2])[1] ~= origin
  end
  local oldest = call('XRANGE', feed, '-', '+', 'COUNT', 1)[1]
  return known > 0 and not (oldest and tonumber(oldest[1]:match('^%d+')) > known)
end

if forgotten() then
  epoch = fresh
  call('HSET', key, 'epoch', epoch)
  call('PUBLISH', base .. 'news', pack({2, origin, false, head, {epoch}}))
end
if before[2] ~= run then
  call('HSET', key, 'run', run)
end
return {epoch, head}
