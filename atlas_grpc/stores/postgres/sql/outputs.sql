select id::text as id, progress, progress_total, progress_message, progress_time, log_start, log_end
from {schema}.job_outputs where id = any($1::uuid[])
