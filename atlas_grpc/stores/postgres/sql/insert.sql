-- New jobs. A name (namespace, request id) or an id that is taken leaves its job out; the caller then looks whose it is.
-- The hashed "in" is no join on purpose: connections that claim are kept from planning hash joins.
with specs as (
    insert into {schema}.job_specs
        (id, namespace, type, queue, priority, request_id, labels, create_time, retention, payload, doc)
    select id, namespace, type, queue, priority, request_id, labels::jsonb, create_time, retention, payload, doc
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::int[], $6::text[], $7::text[], $8::bigint[],
        $9::bigint[], $10::text[], $11::bytea[])
        as new (id, namespace, type, queue, priority, request_id, labels, create_time, retention, payload, doc)
    on conflict do nothing
    returning id
), states as (
    insert into {schema}.job_states
        (id, namespace, type, queue, priority, version, next_start, due, attempt_timeout, deadline, ready, place, doc, xid)
    select id, namespace, type, queue, priority, version, next_start, due, attempt_timeout, deadline, ready, place, doc,
        (select pg_current_xact_id()::text::bigint)
    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::int[], $12::bigint[], $13::bigint[], $14::bigint[],
        $15::bigint[], $16::bigint[], $17::boolean[], $18::smallint[], $19::bytea[])
        as new (id, namespace, type, queue, priority, version, next_start, due, attempt_timeout, deadline, ready, place, doc)
    where (new.id in (select id from specs)) is true
    returning id
)
select count(*) as stored, case when count(*) < cardinality($1) then array_agg(id) end as ids,
    pg_current_xact_id()::text::bigint as xid
from states
