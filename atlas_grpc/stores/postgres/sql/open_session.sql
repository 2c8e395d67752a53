insert into {schema}.worker_sessions (session, expire_time, info) values ($1, $2, $3)
on conflict (session) do update set expire_time = excluded.expire_time, info = excluded.info
