-- New jobs. A name (namespace, request id) that is taken leaves its job out; the caller then looks whose it is.
-- $1 is their number, $3 holds their documents one after the other; see columns.py for the rest.
-- The hashed "in" is no join on purpose: hash joins are switched off.
with specs as (
    insert into {schema}.job_specs
        (id, namespace, type, queue, priority, request_id, labels, create_time, retention, payload, doc)
    select id, namespace, type, queue, priority, request_id, labels::jsonb, create_time, retention,
        convert_from(substring($3::bytea from payload_at for payload_size), 'UTF8'), substring($3::bytea from spec_at for spec_size)
    from unnest(
        $2::uuid[],
        {schema}.spread($4::text::text[], $1),
        {schema}.spread($5::text::text[], $1),
        {schema}.spread($6::text::text[], $1),
        {schema}.spread($7::text::int[], $1),
        {schema}.spread($8::text::text[], $1),
        {schema}.spread($9::text::text[], $1),
        {schema}.spread($10::text::bigint[], $1),
        {schema}.spread($11::text::bigint[], $1),
        $12::text::int[], {schema}.spread($13::text::int[], $1),
        $14::text::int[], {schema}.spread($15::text::int[], $1)
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
        {schema}.spread($4::text::text[], $1),
        {schema}.spread($5::text::text[], $1),
        {schema}.spread($6::text::text[], $1),
        {schema}.spread($7::text::int[], $1),
        {schema}.spread($16::text::bigint[], $1),
        {schema}.spread($17::text::bigint[], $1),
        {schema}.spread($18::text::bigint[], $1),
        {schema}.spread($19::text::bigint[], $1),
        {schema}.spread($20::text::bigint[], $1),
        {schema}.spread($21::text::boolean[], $1),
        $22::text::smallint[],
        $23::text::int[], {schema}.spread($24::text::int[], $1)
    ) as new (id, namespace, type, queue, priority, version, next_start, due, attempt_timeout, deadline, ready, place,
        state_at, state_size)
    where (new.id in (select id from specs)) is true
    returning id
)
select count(*) as stored, case when count(*) < $1 then array_agg(id) end as ids,
    pg_current_xact_id()::text::bigint as xid
from states
