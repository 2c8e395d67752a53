"""Atlas: a job service over gRPC."""

__version__ = "0.3.0"
