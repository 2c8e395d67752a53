select {job}
from {schema}.job_states s
join {schema}.job_specs p on p.namespace = s.namespace and p.id = s.id
where s.id = any($1::uuid[])
