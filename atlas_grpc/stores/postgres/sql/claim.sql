-- Any number of asks: each is one line (any queue) or one line a queue. Rows are locked as they are found.
with {part session_alive}, found as materialized (
    select line.ask, line.slots, job.tid, job.id, job.priority, job.next_start
    from alive
    cross join unnest($4::int[], $5::text[], $6::text[], $7::int[]) as line (ask, type, queue, slots)
    cross join lateral (
        select * from (
            select s.ctid as tid, s.id, s.priority, s.next_start from {schema}.job_states s
            where line.queue is null and s.ready and s.state = 1 and s.type = line.type
            order by s.priority desc, s.next_start, s.id limit line.slots for update skip locked
        ) anywhere
        union all
        select * from (
            select s.ctid as tid, s.id, s.priority, s.next_start from {schema}.job_states s
            where line.queue is not null and s.ready and s.type = line.type and s.queue = line.queue
            order by s.priority desc, s.next_start, s.id limit line.slots for update skip locked
        ) in_queue
    ) job
), picked as materialized (
    select array(
        select tid from (
            select tid, id, priority, next_start, slots,
                row_number() over (partition by ask order by priority desc, next_start, id) as nth
            from found
        ) ranked
        where nth <= slots
        group by tid, id, priority, next_start
        order by priority desc, next_start, id limit $8
    ) as tids, (select count(distinct id) from found) as locked
), {part take_picked}
