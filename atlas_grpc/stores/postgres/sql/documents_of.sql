select key, data from {schema}.documents where kind = $1
