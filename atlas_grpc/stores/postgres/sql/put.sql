-- Compare-and-set. The ids are sorted, and the nested loop locks the rows in that order.
-- $1 is the number of jobs, $3 holds documents and results one after the other; see columns.py for the rest.
with moved as (
    update {schema}.job_states s
    set version = new.version, state = new.state, ready = new.ready, next_start = new.next_start, due = new.due,
        session = new.session, worker = new.worker, fence = new.fence, attempt = new.attempt,
        attempt_start = new.attempt_start, deadline = new.deadline,
        error_reason = new.error_reason, error_message = new.error_message, place = new.place,
        xid = (select pg_current_xact_id()::text::bigint),
        result = convert_from(substring($3::bytea from new.result_at for new.result_size), 'UTF8'),
        doc = substring($3::bytea from new.state_at for new.state_size)
    from unnest(
        $2::uuid[],
        {schema}.spread($4::text::bigint[], $1),
        {schema}.spread($5::text::bigint[], $1),
        {schema}.spread($6::text::smallint[], $1),
        {schema}.spread($7::text::boolean[], $1),
        {schema}.spread($8::text::bigint[], $1),
        {schema}.spread($9::text::bigint[], $1),
        {schema}.spread($10::text::text[], $1),
        {schema}.spread($11::text::text[], $1),
        {schema}.spread($12::text::bigint[], $1),
        {schema}.spread($13::text::int[], $1),
        {schema}.spread($14::text::bigint[], $1),
        {schema}.spread($15::text::bigint[], $1),
        {schema}.spread($16::text::text[], $1),
        {schema}.spread($17::text::text[], $1),
        $18::text::smallint[],
        $19::text::int[], {schema}.spread($20::text::int[], $1),
        $21::text::int[], {schema}.spread($22::text::int[], $1)
    ) as new (id, expected, version, state, ready, next_start, due, session, worker, fence, attempt, attempt_start,
        deadline, error_reason, error_message, place, result_at, result_size, state_at, state_size)
    where s.id = new.id and s.version = new.expected
    returning new.place
)
select count(*) as stored, case when count(*) < $1 then array_agg(place) end as places,
    pg_current_xact_id()::text::bigint as xid
from moved
