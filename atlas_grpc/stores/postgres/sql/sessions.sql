select session, info from {schema}.worker_sessions where expire_time > $1 order by session
