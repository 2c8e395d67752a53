-- "is true" keeps the planner from the index of running jobs: there are few when it plans, and many later.
-- Progress and log lines of running attempts. Lines count from the end of their report, as the log's end is only known
-- once its row is locked.
with alive as materialized (
    select new.*, s.attempt
    from unnest($1::uuid[], $2::bigint[], $3::float8[], $4::float8[], $5::bigint[], $6::text[], $7::bigint[], $8::bigint[])
        with ordinality
        as new (id, fence, progress, progress_total, progress_time, progress_message, lines, bytes, nth)
    join {schema}.job_states s on s.id = new.id
    where (s.state = 2 and s.fence = new.fence) is true
), outputs as (
    insert into {schema}.job_outputs as o
        (id, progress, progress_total, progress_time, progress_message, log_end, log_bytes)
    select id, progress, progress_total, progress_time, progress_message, lines, bytes from alive order by nth
    on conflict (id) do update set
        progress = case when excluded.progress_time is null then o.progress else excluded.progress end,
        progress_total = case when excluded.progress_time is null then o.progress_total else excluded.progress_total end,
        progress_message =
            case when excluded.progress_time is null then o.progress_message else excluded.progress_message end,
        progress_time = coalesce(excluded.progress_time, o.progress_time),
        log_end = o.log_end + excluded.log_end,
        log_bytes = o.log_bytes + excluded.log_bytes
    returning id, log_start, log_end, log_bytes, log_bytes_gone
), lines as (
    insert into {schema}.job_logs (id, number, time, bytes_before, attempt, severity, message)
    select alive.id, outputs.log_end - line.back, $9, outputs.log_bytes - line.bytes_back, alive.attempt, line.severity,
        line.message
    from unnest($10::bigint[], $11::bigint[], $12::bigint[], $13::smallint[], $14::text[])
        as line (nth, back, bytes_back, severity, message)
    join alive on alive.nth = line.nth
    join outputs on outputs.id = alive.id
)
select alive.nth, outputs.log_end - outputs.log_start as lines, outputs.log_bytes - outputs.log_bytes_gone as bytes
from alive
join outputs on outputs.id = alive.id
