"""`make bench`: Atlas against a bare grpc.aio server, in one run and with the same client."""
