-- What workers tell of themselves; no row when that is nothing. Apart from the sessions, so that a heartbeat does not
-- write it again.
create table session_info (
    session text primary key,
    info blob not null
);

-- Small named documents that are for all who use the store.
create table document (
    kind text not null,
    key text not null,
    data blob not null,
    primary key (kind, key)
);
