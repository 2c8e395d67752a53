#!lua flags=no-writes
-- Kept lines of a log. Told: job, from which on, how many. Answers the number of the first, then the lines.

local id, start, limit = unpack(input, 1, 3)
local kept = tonumber(call('HGET', base .. 'out:' .. id, 'start')) or 0
local skip = math.max(0, start - kept)
local lines = limit > 0 and call('LRANGE', base .. 'log:' .. id, exact(skip), exact(skip + limit - 1)) or {}
table.insert(lines, 1, kept + skip)
return lines
