-- Jobs. Instants are microseconds since 1970 in UTC; the view `jobs` shows them as timestamps.
-- There are no foreign keys and no GIN indexes, and few indexes on the state: its rows are rewritten at every step.

create table {schema}.meta (
    single boolean primary key default true check (single),
    epoch text not null default gen_random_uuid()::text,
    feed_floor bigint not null default 0
);
comment on table {schema}.meta is 'One row: the line of descent of resume tokens, and how far back deletions are known.';
insert into {schema}.meta default values;

-- What was asked for. Never updated, so that the unique request id costs no index writes later.
create table {schema}.job_specs (
    id uuid not null,
    create_time bigint not null,
    retention bigint not null,
    priority integer not null,
    namespace text collate "C" not null,
    type text collate "C" not null,
    queue text collate "C" not null,
    request_id text collate "C",
    labels jsonb,
    payload text,
    doc bytea not null,
    primary key (namespace, id)
);
comment on table {schema}.job_specs is 'The immutable part of each job. doc: msgpack, with the payload where that is not JSON.';
create unique index job_specs_request_id on {schema}.job_specs (namespace, request_id) where request_id is not null;

-- Where each job is. No update of it can be HOT: every step changes an indexed column.
create table {schema}.job_states (
    id uuid primary key,
    version bigint not null,
    xid bigint not null,
    next_start bigint not null,
    due bigint,
    fence bigint not null default 0,
    attempt_start bigint not null default 0,
    attempt_timeout bigint,
    deadline bigint,
    attempt integer not null default 0,
    priority integer not null,
    place smallint not null,
    state smallint not null default 1,
    ready boolean not null,
    namespace text collate "C" not null,
    type text collate "C" not null,
    queue text collate "C" not null,
    session text collate "C" not null default '',
    worker text not null default '',
    result text,
    error_reason text,
    error_message text,
    doc bytea not null
);
comment on table {schema}.job_states is
    'The mutable part of each job. doc: msgpack; one version behind while a claim has not been followed by a step.';
comment on column {schema}.job_states.xid is 'The transaction of the latest change: the position in the feed.';
comment on column {schema}.job_states.place is 'The place within that transaction.';
-- The two indexes of ready jobs have different conditions, so that a claim names the one it means: while there is only
-- one queue they look alike to the planner, and it keeps what it chose.
create index job_states_ready on {schema}.job_states (type, priority desc, next_start, id) where ready and state = 1;
create index job_states_ready_in_queue on {schema}.job_states (type, queue, priority desc, next_start, id) where ready;
create index job_states_due on {schema}.job_states (due, id) where due is not null;
-- With the token as a second column no two entries are alike: equal ones are merged again and again, which cost a fifth
-- of a claim.
create index job_states_session on {schema}.job_states (session, fence) where state = 2;
create index job_states_feed on {schema}.job_states (xid);

create table {schema}.job_outputs (
    id uuid primary key,
    progress double precision,
    progress_total double precision,
    progress_time bigint,
    log_start bigint not null default 0,
    log_end bigint not null default 0,
    log_bytes_gone bigint not null default 0,
    log_bytes bigint not null default 0,
    progress_message text
) with (fillfactor = 50);
comment on table {schema}.job_outputs is 'What jobs told about themselves: the latest progress, and the extent of the log.';

create table {schema}.job_logs (
    id uuid not null,
    number bigint not null,
    time bigint not null,
    bytes_before bigint not null,
    attempt integer not null,
    severity smallint not null,
    message text not null,
    primary key (id, number)
);

create table {schema}.worker_sessions (
    session text collate "C" primary key,
    expire_time bigint not null
) with (fillfactor = 50);

create table {schema}.tombstones (
    xid bigint not null,
    place smallint not null,
    id uuid not null,
    doc bytea not null
);
comment on table {schema}.tombstones is 'Deleted jobs, for the feed. Trimmed; meta.feed_floor says how far.';
create index tombstones_feed on {schema}.tombstones (xid);

-- A claim takes one value and numbers its jobs from there, so that tokens grow in the order of the claim.
create sequence {schema}.fences increment by 1000 start with 1000;

alter table {schema}.job_states set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 1,
    autovacuum_analyze_scale_factor = 0.05
);
alter table {schema}.job_specs set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);
alter table {schema}.job_outputs set (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_cost_delay = 1
);
alter table {schema}.job_logs set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);
alter table {schema}.tombstones set (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);
alter table {schema}.worker_sessions set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- For people.
create view {schema}.jobs as
select
    s.id,
    (array['PENDING', 'RUNNING', 'SUCCESS', 'FAILED', 'CANCELLED'])[s.state] as state,
    s.ready,
    p.namespace,
    p.type,
    p.queue,
    p.priority,
    s.attempt,
    nullif(s.worker, '') as worker,
    timestamptz 'epoch' + p.create_time * interval '1 microsecond' as created,
    case when s.state = 1 then timestamptz 'epoch' + s.next_start * interval '1 microsecond' end as starts,
    case when s.attempt > 0 then timestamptz 'epoch' + s.attempt_start * interval '1 microsecond' end as started,
    case when s.state > 2 then timestamptz 'epoch' + (s.due - p.retention) * interval '1 microsecond' end as finished,
    timestamptz 'epoch' + s.due * interval '1 microsecond' as due,
    p.labels,
    p.payload,
    s.result,
    s.error_reason,
    s.error_message,
    o.progress,
    o.progress_total,
    o.progress_message,
    p.request_id,
    s.version
from {schema}.job_states s
join {schema}.job_specs p on p.namespace = s.namespace and p.id = s.id
left join {schema}.job_outputs o on o.id = s.id;
comment on view {schema}.jobs is 'Every job, readable. payload and result are null where they are not JSON.';
