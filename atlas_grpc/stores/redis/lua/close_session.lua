#!lua flags=allow-oom
-- Forgets a session, or lets it count as expired while it holds jobs. Told: session.

local session = input[1]
call('UNLINK', base .. 'info:' .. session)
if call('EXISTS', base .. 'held:' .. session) == 1 then
  call('ZADD', base .. 'sessions', 0, session)
else
  call('ZREM', base .. 'sessions', session)
end
return 0
