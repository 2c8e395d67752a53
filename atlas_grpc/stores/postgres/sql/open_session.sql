insert into {schema}.worker_sessions (session, expire_time) values ($1, $2)
on conflict (session) do update set expire_time = excluded.expire_time
