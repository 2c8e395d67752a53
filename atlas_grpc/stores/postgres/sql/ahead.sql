-- How many jobs would be claimed before one; counts up to a bound.
select count(*) as ahead from (
    (
        select from {schema}.job_states where ready and state = 1 and type = $1 and priority > $2
        order by priority desc, next_start, id limit $5
    )
    union all
    (
        select from {schema}.job_states where ready and state = 1 and type = $1 and priority = $2
            and (next_start, id) < ($3, $4::uuid)
        order by priority desc, next_start, id limit $5
    )
) before
