-- New jobs. A name (namespace, request id) that is taken leaves its job out; the caller then looks whose it is.
-- $1 is their number, $3 holds their documents one after the other; {column …} is a literal; see columns.py.
-- The hashed "in" is no join on purpose: hash joins are switched off.
with specs as (
    insert into {schema}.job_specs
        (id, namespace, type, queue, priority, request_id, labels, create_time, retention, payload, doc)
    select id, namespace, type, queue, priority, request_id, labels::jsonb, create_time, retention,
        convert_from(substring($3::bytea from payload_at for payload_size), 'UTF8'), substring($3::bytea from spec_at for spec_size)
    from unnest(
        $2::uuid[],
        {column 4 text},
        {column 5 text},
        {column 6 text},
        {column 7 int},
        {column 8 text},
        {column 9 text},
        {column 10 bigint},
        {column 11 bigint},
        $12::text::int[], {column 13 int},
        $14::text::int[], {column 15 int}
    ) as new (id, namespace, type, queue, priority, request_id, labels, create_time, retention, payload_at, payload_size,
        spec_at, spec_size)
    on conflict (namespace, request_id) where request_id is not null do nothing
    returning id
), states as (
    insert into {schema}.job_states
        (id, namespace, type, queue, priority, version, next_start, due, attempt_timeout, deadline, ready, place, xid, doc)
    select id, namespace, type, queue, priority, version, next_start, due, attempt_timeout, deadline, ready, place,
        (select pg_current_xact_id()::text::bigint), substring($3::bytea from state_at for state_size)
    from unnest(
        $2::uuid[],
        {column 4 text},
        {column 5 text},
        {column 6 text},
        {column 7 int},
        {column 16 bigint},
        {column 17 bigint},
        {column 18 bigint},
        {column 19 bigint},
        {column 20 bigint},
        {column 21 boolean},
        $22::text::smallint[],
        $23::text::int[], {column 24 int}
    ) as new (id, namespace, type, queue, priority, version, next_start, due, attempt_timeout, deadline, ready, place,
        state_at, state_size)
    where (new.id in (select id from specs)) is true
    returning id
)
select count(*) as stored, case when count(*) < $1 then array_agg(id) end as ids,
    pg_current_xact_id()::text::bigint as xid
from states
