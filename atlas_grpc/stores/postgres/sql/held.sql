select {job}
from {schema}.job_states s
join {schema}.job_specs p on p.namespace = s.namespace and p.id = s.id
where s.state = 2 and s.session = $1
limit $2
