-- One ask for a type in any queue: the common claim, without the sorting of several lines.
with {part session_alive}, picked as materialized (
    select array(
        select s.ctid from {schema}.job_states s where s.ready and s.state = 1 and s.type = $4
        order by s.priority desc, s.next_start, s.id limit $5::int for update skip locked
    ) as tids, 0 as locked
    from alive
), {part take_picked}
