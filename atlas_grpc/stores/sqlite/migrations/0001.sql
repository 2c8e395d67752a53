-- One row: the line of descent of the feed's cursors, the latest fence, and how many jobs are in each state.
create table meta (
    one integer primary key check (one = 1),
    epoch text not null,
    fence integer not null default 0,
    pending integer not null default 0,
    running integer not null default 0,
    success integer not null default 0,
    failed integer not null default 0,
    cancelled integer not null default 0
);

-- What changes in a job's life, and what is searched by. `n` is the place in the feed where the job was inserted; `doc`
-- is the record (stores/codec.py), without a result that is JSON: that stands beside it.
create table state (
    n integer primary key,
    id text not null,
    namespace text not null,
    type text not null,
    queue text not null,
    priority integer not null,
    created integer not null,
    version integer not null,
    state integer not null,
    ready integer not null,
    next_start integer not null,
    due integer,
    session text,
    fence integer not null,
    attempt integer not null,
    started integer,
    finished integer,
    doc blob not null,
    result text,
    error text
);
create unique index state_id on state (id);
create index state_namespace on state (namespace, id);
create index state_ready on state (type, priority desc, next_start, id) where ready;
create index state_queue on state (type, queue, priority desc, next_start, id) where ready;
create index state_timer on state (due, id) where due is not null and state < 3;
create index state_expiry on state (due, id) where due is not null and state >= 3;
create index state_held on state (session) where session is not null;

-- What was asked for: never changes. A payload that is JSON stands beside the record.
create table spec (
    n integer primary key,
    doc blob not null,
    payload text
);

-- Request ids.
create table name (
    namespace text not null,
    request_id text not null,
    n integer not null,
    primary key (namespace, request_id)
) without rowid;

-- The changes, oldest first: this job got this version, or was deleted (`gone` is its spec). The first row is only a
-- place to start from.
create table feed (
    seq integer primary key,
    n integer,
    version integer,
    gone blob
);

create table session (
    id text primary key,
    until integer not null
) without rowid;

-- Progress, and which log lines are kept.
create table output (
    n integer primary key,
    current real,
    total real,
    message text,
    time integer,
    log_start integer not null default 0,
    log_end integer not null default 0,
    log_size integer not null default 0
);

create table log (
    n integer not null,
    line integer not null,
    time integer not null,
    attempt integer not null,
    severity integer not null,
    message text not null,
    primary key (n, line)
) without rowid;

-- For people: select * from job.
create view job as
select
    state.id,
    state.namespace,
    state.type,
    state.queue,
    state.priority,
    case state.state
        when 1 then 'PENDING' when 2 then 'RUNNING' when 3 then 'SUCCESS' when 4 then 'FAILED' when 5 then 'CANCELLED'
    end as state,
    state.attempt,
    strftime('%Y-%m-%dT%H:%M:%fZ', state.created / 1e6, 'unixepoch') as created,
    case when state.state = 1 then strftime('%Y-%m-%dT%H:%M:%fZ', state.next_start / 1e6, 'unixepoch') end as next_start,
    strftime('%Y-%m-%dT%H:%M:%fZ', state.started / 1e6, 'unixepoch') as started,
    strftime('%Y-%m-%dT%H:%M:%fZ', state.finished / 1e6, 'unixepoch') as finished,
    spec.payload,
    state.result,
    state.error,
    output.current as progress,
    output.message as progress_message
from state
join spec on spec.n = state.n
left join output on output.n = state.n;
