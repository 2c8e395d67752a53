-- Finished jobs beyond the bounds go by the time of their end.
create index state_finished on state (finished, id) where finished is not null;
