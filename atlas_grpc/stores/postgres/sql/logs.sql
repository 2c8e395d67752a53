select l.severity, l.message, l.attempt, l.number, l.time
from {schema}.job_outputs o
join {schema}.job_logs l on l.id = o.id
where o.id = $1::uuid and l.number >= $2 and l.number >= greatest(o.log_start, o.log_end - $4)
order by l.id, l.number
limit $3
