with renewed as (
    update {schema}.worker_sessions w set expire_time = $3
    from unnest($1::text[]) as mine (session)
    where w.session = mine.session and w.expire_time > $2
    returning w.session
)
select session from renewed
