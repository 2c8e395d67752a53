-- One pass over a sample of the pages (100 %: all of them).
select s.state, case when s.ready then s.type end as type, case when s.ready then s.queue end as queue,
    count(*) as jobs, min(s.next_start) as oldest
from {schema}.job_states s tablesample system ($1)
group by 1, 2, 3
