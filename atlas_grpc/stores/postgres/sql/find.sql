-- Newest first, from after an id down to where so many jobs have been looked at.
with stop as materialized (
    select id from {schema}.job_specs
    where namespace = $1 and id < $2
    order by namespace desc, id desc offset $3 limit 1
)
select found.*, floor.id as stop
from (select (select id from stop)) floor (id)
left join lateral (
    select {job}, s.id as found_id
    from {schema}.job_specs p
    join {schema}.job_states s on s.id = p.id
    where p.namespace = $1 and p.id < $2 and p.id >= coalesce(floor.id, '00000000-0000-0000-0000-000000000000')
        and ($5::smallint[] is null or s.state = any($5))
        and ($6::text[] is null or p.type = any($6))
        and ($7::text[] is null or p.queue = any($7))
        and ($8::text is null or p.labels @> $8::jsonb)
        and p.create_time >= $9 and p.create_time < $10
    order by p.namespace desc, p.id desc
    limit $4
) found on true
order by found.found_id desc
