"""The generated messages and stubs of `atlas.v1`, under one short name: `from atlas_grpc import pb`."""

from ._gen.atlas.v1.job_pb2 import Attempt as Attempt
from ._gen.atlas.v1.job_pb2 import Data as Data
from ._gen.atlas.v1.job_pb2 import Job as Job
from ._gen.atlas.v1.job_pb2 import JobType as JobType
from ._gen.atlas.v1.job_pb2 import LogEntry as LogEntry
from ._gen.atlas.v1.job_pb2 import Progress as Progress
from ._gen.atlas.v1.job_pb2 import RetryPolicy as RetryPolicy
from ._gen.atlas.v1.job_pb2 import Transition as Transition
from ._gen.atlas.v1.job_service_pb2 import *  # noqa: F403 - a facade re-exports every message of the service
from ._gen.atlas.v1.job_service_pb2_grpc import JobServiceStub as JobServiceStub
from ._gen.atlas.v1.worker_service_pb2 import *  # noqa: F403 - the same
from ._gen.atlas.v1.worker_service_pb2_grpc import WorkerServiceStub as WorkerServiceStub
