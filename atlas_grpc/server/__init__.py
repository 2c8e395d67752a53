"""The gRPC server: the contract on the wire, and the composition of everything behind it."""
