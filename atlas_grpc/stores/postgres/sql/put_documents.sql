-- Those of the documents that differ from what is there; the count refuses what is too much, by its constraint. Which
-- ones are new is known only from what the insert met: others may have added them since this statement began.
-- The keys are sorted, so that two calls lock their rows in the same order. "limit" keeps the planner from reading the
-- whole kind for each of them.
with changed as materialized (
    select new.key, new.data
    from unnest($2::text[], $3::bytea[]) as new (key, data)
    left join lateral (
        select d.data from {schema}.documents d where d.kind = $1 and d.key = new.key limit 1
    ) known on true
    where known.data is distinct from new.data
), stored as (
    insert into {schema}.documents as d (kind, key, data)
    select $1, key, data from changed
    on conflict (kind, key) do update set data = excluded.data, revision = d.revision + 1
    where d.data <> excluded.data
    returning revision
)
insert into {schema}.document_kinds as k (kind, documents)
select $1, count(*) from stored where revision = 1 having count(*) > 0
on conflict (kind) do update set documents = k.documents + excluded.documents
