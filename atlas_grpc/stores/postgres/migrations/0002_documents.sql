-- What workers tell of themselves, and small named documents that all servers share.

alter table {schema}.worker_sessions add column info bytea not null default '';
comment on column {schema}.worker_sessions.info is 'What the worker tells of itself; written when the session is opened.';

create table {schema}.documents (
    kind text collate "C" not null,
    key text collate "C" not null,
    revision bigint not null default 1,
    data bytea not null,
    primary key (kind, key)
);
comment on table {schema}.documents is 'Small named documents that all servers share, such as job types.';
comment on column {schema}.documents.revision is 'How often the document was written.';

create table {schema}.document_kinds (
    kind text collate "C" primary key,
    documents bigint not null,
    constraint document_kinds_full check (documents <= 10000)
);
comment on table {schema}.document_kinds is 'How many documents of each kind there are: two servers that add at once are told apart from one too many.';
