select pg_relation_size('{schema}.job_states') / current_setting('block_size')::bigint as pages,
    (
        select sum(pg_total_relation_size(('{schema}.' || name)::regclass))::bigint
        from unnest(array['job_specs', 'job_states', 'job_outputs', 'job_logs', 'tombstones']) as name
    ) as size
