"""`make bench-stores`: Atlas on each store, beside what the store's engine does by itself in the same batches."""
