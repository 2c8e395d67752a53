-- Whole transactions after a cursor, as long as they are behind the horizon: those that are still open, or began later,
-- can only come after it.
with horizon as materialized (
    select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as xid
), until as materialized (
    select max(xid) as xid from (
        select xid from (
            (select xid from {schema}.job_states where xid > $1 and xid < (select xid from horizon) order by xid limit $2)
            union all
            (select xid from {schema}.tombstones where xid > $1 and xid < (select xid from horizon) order by xid limit $2)
        ) either
        order by xid limit $2
    ) page
)
select told.*, horizon.xid as horizon, meta.feed_floor
from horizon
cross join {schema}.meta
left join (
    select {job}, s.xid, s.place
    from {schema}.job_states s
    join {schema}.job_specs p on p.namespace = s.namespace and p.id = s.id
    where s.xid > $1 and s.xid <= (select xid from until)
    union all
    select null, null, null, null, null, null, null, t.doc, null, t.xid, t.place
    from {schema}.tombstones t
    where t.xid > $1 and t.xid <= (select xid from until)
) told on true
order by told.xid, told.place
