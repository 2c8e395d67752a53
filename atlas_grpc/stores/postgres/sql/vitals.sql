-- What holds back vacuum here (in transactions; not this question, and not vacuum itself), and what vacuum has to do.
with held (holder, age) as (
    select 'backend', age(backend_xmin) from pg_stat_activity
    where pid <> pg_backend_pid() and (datname is null or datname = current_database())
        and coalesce(backend_type, '') <> 'autovacuum worker'
    union all
    select 'slot', greatest(age(xmin), age(catalog_xmin)) from pg_replication_slots
    union all
    select 'prepared', age(transaction) from pg_prepared_xacts where database = current_database()
), oldest as (
    select kind.holder, coalesce(max(held.age), 0) as age
    from unnest(array['backend', 'slot', 'prepared']) as kind (holder)
    left join held on held.holder = kind.holder
    group by kind.holder
)
select (select jsonb_object_agg(holder, age) from oldest)::text as held,
    coalesce(jsonb_object_agg(relname, n_dead_tup), '{}')::text as dead,
    coalesce(jsonb_object_agg(relname, n_live_tup), '{}')::text as live
from pg_stat_all_tables
where schemaname = $1::text
