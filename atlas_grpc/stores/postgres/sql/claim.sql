-- Any number of asks: each is one line (any queue) or one line a queue. Rows are locked as they are found, and only
-- then is the token drawn, so that a job's tokens grow however claims overlap.
with alive as materialized (
    select session from {schema}.worker_sessions where session = $1 and expire_time > $3 for key share
), found as materialized (
    select line.ask, line.slots, job.tid, job.id, job.priority, job.next_start
    from alive
    cross join unnest($4::int[], $5::text[], $6::text[], $7::int[]) as line (ask, type, queue, slots)
    cross join lateral (
        select * from (
            select s.ctid as tid, s.id, s.priority, s.next_start from {schema}.job_states s
            where line.queue is null and s.ready and s.state = 1 and s.type = line.type
            order by s.priority desc, s.next_start, s.id limit line.slots for update skip locked
        ) anywhere
        union all
        select * from (
            select s.ctid as tid, s.id, s.priority, s.next_start from {schema}.job_states s
            where line.queue is not null and s.ready and s.type = line.type and s.queue = line.queue
            order by s.priority desc, s.next_start, s.id limit line.slots for update skip locked
        ) in_queue
    ) job
), picked as materialized (
    select array(
        select tid from (
            select tid, id, priority, next_start, slots,
                row_number() over (partition by ask order by priority desc, next_start, id) as nth
            from found
        ) ranked
        where nth <= slots
        group by tid, id, priority, next_start
        order by priority desc, next_start, id limit $8
    ) as tids
), token as materialized (
    select tids, nextval('{schema}.fences') as base from picked where cardinality(tids) > 0
)
update {schema}.job_states s
set state = 2, version = s.version + 1, ready = false, session = $1, worker = $2, fence = token.base + pick.nth,
    attempt = s.attempt + 1, attempt_start = $3, due = least($3 + s.attempt_timeout, s.deadline),
    place = pick.nth, xid = (select pg_current_xact_id()::text::bigint)
from token
cross join unnest(token.tids) with ordinality as pick (tid, nth)
cross join {schema}.job_specs p
where s.ctid = pick.tid and p.namespace = s.namespace and p.id = s.id
returning s.fence, s.doc as state, p.doc as spec, p.payload, s.xid, (select count(distinct id) from found) as locked
