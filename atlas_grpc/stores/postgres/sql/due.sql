-- What is due (one more than wanted, to know the next), and when the first that is not due yet will be.
with found as materialized (
    select id, due from {schema}.job_states where due <= $1 order by due, id limit $2
)
select told.*, (select min(due) from {schema}.job_states where due > $1) as following
from (select 1) one
left join (
    select {job}, found.due, found.id
    from found
    join {schema}.job_states s on s.id = found.id
    join {schema}.job_specs p on p.namespace = s.namespace and p.id = s.id
) told on true
order by told.due, told.id
