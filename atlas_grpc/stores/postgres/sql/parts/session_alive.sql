-- Whose claim it is. The lock makes closing the session wait.
alive as materialized (
    select session from {schema}.worker_sessions where session = $1 and expire_time > $3 for key share
)
