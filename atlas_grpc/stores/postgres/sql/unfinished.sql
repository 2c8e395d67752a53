-- How many jobs are pending or running, by a sample of the pages.
select count(*) as jobs from {schema}.job_states s tablesample system ($1) where s.state <= 2
