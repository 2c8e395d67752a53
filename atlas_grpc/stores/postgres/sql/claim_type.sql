-- One ask for a type in any queue: the common claim, without the sorting of several lines.
with alive as materialized (
    select session from {schema}.worker_sessions where session = $1 and expire_time > $3 for key share
), picked as materialized (
    select array(
        select s.ctid from {schema}.job_states s where s.ready and s.state = 1 and s.type = $4
        order by s.priority desc, s.next_start, s.id limit $5::int for update skip locked
    ) as tids
    from alive
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
returning s.fence, s.doc as state, p.doc as spec, p.payload, s.xid, 0 as locked
