-- Compare-and-set. The arrays are sorted by id, and the nested loop locks the rows in that order.
with moved as (
    update {schema}.job_states s
    set version = new.version, state = new.state, ready = new.ready, next_start = new.next_start, due = new.due,
        session = new.session, worker = new.worker, fence = new.fence, attempt = new.attempt,
        attempt_start = new.attempt_start, deadline = new.deadline, result = new.result,
        error_reason = new.error_reason, error_message = new.error_message, doc = new.doc, place = new.place,
        xid = (select pg_current_xact_id()::text::bigint)
    from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::smallint[], $5::boolean[], $6::bigint[], $7::bigint[],
        $8::text[], $9::text[], $10::bigint[], $11::int[], $12::bigint[], $13::bigint[], $14::text[], $15::text[],
        $16::text[], $17::bytea[], $18::smallint[])
        as new (id, expected, version, state, ready, next_start, due, session, worker, fence, attempt, attempt_start,
            deadline, result, error_reason, error_message, doc, place)
    where s.id = new.id and s.version = new.expected
    returning new.place
)
select count(*) as stored, case when count(*) < cardinality($1) then array_agg(place) end as places,
    pg_current_xact_id()::text::bigint as xid
from moved
