-- The jobs of names that were taken.
select {job}
from unnest($1::text[], $2::text[]) as name (namespace, request_id)
join {schema}.job_specs p on p.namespace = name.namespace and p.request_id = name.request_id
join {schema}.job_states s on s.id = p.id
