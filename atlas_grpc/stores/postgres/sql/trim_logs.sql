-- Forgets the oldest lines beyond a number and a size.
with kept as materialized (
    select o.id, coalesce(first.number, o.log_end) as log_start, coalesce(first.bytes_before, o.log_bytes) as bytes_gone
    from {schema}.job_outputs o
    left join lateral (
        select l.number, l.bytes_before from {schema}.job_logs l
        where l.id = o.id and l.number >= o.log_end - $2 and l.bytes_before >= o.log_bytes - $3
        order by l.id, l.number limit 1
    ) first on true
    where o.id = any($1::uuid[])
    order by o.id
), shortened as (
    update {schema}.job_outputs o set log_start = kept.log_start, log_bytes_gone = kept.bytes_gone
    from kept where o.id = kept.id
)
delete from {schema}.job_logs l using kept where l.id = kept.id and l.number < kept.log_start
