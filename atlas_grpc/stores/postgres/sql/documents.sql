select key, data from {schema}.documents where kind = $1 and key = any($2::text[])
