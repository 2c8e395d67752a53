"""Remote workers, measured beside the worker in the server's own process."""
