-- Forgets deletions up to a transaction. What came in late for the output of a deleted job goes too.
with gone as (
    delete from {schema}.tombstones where xid <= $1 returning id
), outputs as (
    delete from {schema}.job_outputs o using gone where o.id = gone.id
), logs as (
    delete from {schema}.job_logs l using gone where l.id = gone.id
)
update {schema}.meta set feed_floor = greatest(feed_floor, $1)
