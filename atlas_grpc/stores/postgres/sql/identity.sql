-- What time it is there, and who the server is. Another line of descent (restored, failed over) has other positions in
-- its feed; where a crash may lose commits, each start of the server is a line of its own.
select (extract(epoch from clock_timestamp()) * 1000000)::bigint as now,
    md5(concat_ws(
        ' ', m.epoch, '{schema}.job_states'::regclass::oid, c.system_identifier, left(pg_walfile_name(pg_current_wal_lsn()), 8),
        case when current_setting('synchronous_commit') = 'off' or current_setting('fsync') = 'off'
            then pg_postmaster_start_time() end
    )) as epoch
from {schema}.meta m
cross join pg_control_system() c
