"""A worker in a process of its own: the runner of `atlas_grpc.worker` over gRPC."""
