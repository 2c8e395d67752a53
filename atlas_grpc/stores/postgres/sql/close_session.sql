-- Waits for claims of the session that are under way.
delete from {schema}.worker_sessions where session = $1
