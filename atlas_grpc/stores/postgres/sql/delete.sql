-- Compare-and-delete, in the order of the ids, with all that belongs to a job. What the feed tells of it stays.
with gone as (
    delete from {schema}.job_states s
    using unnest($1::uuid[], $2::bigint[], $3::smallint[]) as old (id, version, place), {schema}.job_specs p
    where s.id = old.id and s.version = old.version and p.namespace = s.namespace and p.id = s.id
    returning s.id, s.namespace, old.place
), specs as (
    delete from {schema}.job_specs p using gone where p.namespace = gone.namespace and p.id = gone.id
), outputs as (
    delete from {schema}.job_outputs o using gone where o.id = gone.id
), logs as (
    delete from {schema}.job_logs l using gone where l.id = gone.id
), told as (
    insert into {schema}.tombstones (xid, place, id, doc)
    select (select pg_current_xact_id()::text::bigint), old.place, old.id, old.doc
    from unnest($1::uuid[], $3::smallint[], $4::bytea[]) as old (id, place, doc)
    where (old.place in (select place from gone)) is true
)
select count(*) as stored, array_agg(place) as places, pg_current_xact_id()::text::bigint as xid from gone
