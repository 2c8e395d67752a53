-- Starts what `picked` names, in its order. The rows are locked by now, and only then is the token drawn, so that a
-- job's tokens grow however claims overlap.
token as materialized (
    select tids, locked, nextval('{schema}.fences') as base from picked where cardinality(tids) > 0
)
update {schema}.job_states s
set state = 2, version = s.version + 1, ready = false, session = $1, worker = $2, fence = token.base + pick.nth,
    attempt = s.attempt + 1, attempt_start = $3, due = least($3 + s.attempt_timeout, s.deadline),
    place = pick.nth, xid = (select pg_current_xact_id()::text::bigint)
from token
cross join unnest(token.tids) with ordinality as pick (tid, nth)
cross join {schema}.job_specs p
where s.ctid = pick.tid and p.namespace = s.namespace and p.id = s.id
returning s.fence, s.doc as state, p.doc as spec, p.payload, s.xid, token.locked
