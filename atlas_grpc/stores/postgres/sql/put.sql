-- Compare-and-set. The ids are sorted, and the nested loop locks the rows in that order.
-- $1 is the number of jobs, $3 holds documents and results one after the other; {column …} is a literal; see columns.py.
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
        {column 4 bigint},
        {column 5 bigint},
        {column 6 smallint},
        {column 7 boolean},
        {column 8 bigint},
        {column 9 bigint},
        {column 10 text},
        {column 11 text},
        {column 12 bigint},
        {column 13 int},
        {column 14 bigint},
        {column 15 bigint},
        {column 16 text},
        {column 17 text},
        $18::text::smallint[],
        $19::text::int[], {column 20 int},
        $21::text::int[], {column 22 int}
    ) as new (id, expected, version, state, ready, next_start, due, session, worker, fence, attempt, attempt_start,
        deadline, error_reason, error_message, place, result_at, result_size, state_at, state_size)
    where s.id = new.id and s.version = new.expected and (s.state <> 2 or s.fence = new.fence)
    returning new.place
)
select count(*) as stored, case when count(*) < $1 then array_agg(place) end as places,
    pg_current_xact_id()::text::bigint as xid
from moved
