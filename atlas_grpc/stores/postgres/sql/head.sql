-- The newest change of those behind the horizon: no transaction that is still open can come before it. Only what came
-- after the last known head is looked at.
select h.xid as horizon, h.next,
    greatest(
        $1::bigint,
        (select max(xid) from {schema}.job_states where xid > $1 and xid < h.xid),
        (select max(xid) from {schema}.tombstones where xid > $1 and xid < h.xid),
        (select feed_floor from {schema}.meta)
    ) as head
from (
    select pg_snapshot_xmin(now)::text::bigint as xid, pg_snapshot_xmax(now)::text::bigint as next
    from (select pg_current_snapshot() as now) snapshot
) h
