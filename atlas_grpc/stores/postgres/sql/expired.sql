-- Sessions whose time is over, and those that are gone but still run jobs. The sessions of running jobs are found by
-- leaps over the index, one for each.
with recursive running (session) as (
    (select session from {schema}.job_states where state = 2 order by session limit 1)
    union all
    select (
        select s.session from {schema}.job_states s
        where s.state = 2 and s.session > running.session order by s.session limit 1
    )
    from running where running.session is not null
)
select session from (
    select session from {schema}.worker_sessions where expire_time <= $1
    union all
    select running.session from running
    where running.session is not null
        and not exists (select from {schema}.worker_sessions w where w.session = running.session)
) over
limit $2
