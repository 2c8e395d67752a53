#!lua flags=allow-oom
-- Opens a session, or gives one that is there a new term. Told: session, until when. ARGV: what the worker tells of itself.

local session, info = input[1], ARGV[2]
call('ZADD', base .. 'sessions', input[2], session)
if info ~= '' then
  call('SET', base .. 'info:' .. session, info)
else
  call('UNLINK', base .. 'info:' .. session)
end
return 0
