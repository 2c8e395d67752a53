-- Since when the first job of each queue and type is ready: leaps over the index, one for each queue, type and priority.
with recursive line (type, queue, priority, oldest, nth) as (
    (
        select type, queue, priority, next_start, 1 from {schema}.job_states
        where ready order by type, queue, priority desc, next_start, id limit 1
    )
    union all
    select following.* from line
    cross join lateral (
        select * from (
            select * from (
                select s.type, s.queue, s.priority, s.next_start, line.nth + 1 from {schema}.job_states s
                where s.ready and s.type = line.type and s.queue = line.queue and s.priority < line.priority
                order by s.priority desc, s.next_start, s.id limit 1
            ) lower_priority
            union all
            select * from (
                select s.type, s.queue, s.priority, s.next_start, line.nth + 1 from {schema}.job_states s
                where s.ready and (s.type, s.queue) > (line.type, line.queue)
                order by s.type, s.queue, s.priority desc, s.next_start, s.id limit 1
            ) next_queue
        ) either
        limit 1
    ) following
    where line.nth < $1
)
select type, queue, min(oldest) as oldest from line group by type, queue
