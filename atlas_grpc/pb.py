"""The generated messages and stubs of `atlas.v1`, under one short name: `from atlas_grpc import pb`."""

from ._gen.atlas.v1.job_pb2 import Attempt, Data, Job, JobType, LogEntry, Progress, RetryPolicy, Transition
from ._gen.atlas.v1.job_service_pb2 import *  # noqa: F403 - a facade re-exports every message of the service
from ._gen.atlas.v1.job_service_pb2_grpc import JobServiceStub
