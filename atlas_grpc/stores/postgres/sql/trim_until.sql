-- The newest deletion that is one too many; not beyond the horizon, and in steps.
select least(
    (select xid from {schema}.tombstones order by xid desc offset $1 limit 1),
    (select xid from {schema}.tombstones order by xid offset $2 limit 1),
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1
) as xid
where exists (select from {schema}.tombstones order by xid desc offset $1 limit 1)
