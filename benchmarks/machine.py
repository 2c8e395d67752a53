"""What the machine tells about itself and its processes; None where it does not."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from google.protobuf.internal import api_implementation

from .loops import UVLOOP


def cores() -> list[int]:
    """The CPUs that this process may use."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(pid: int, cpus: list[int]) -> bool:
    """Keeps a process on these CPUs; whether that was possible."""
    if sys.platform != "linux":
        return False
    try:
        os.sched_setaffinity(pid, cpus)
    except OSError:
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """The CPU time that a process and its living children have used; 0 where the system does not tell."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        used = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (OSError, ValueError, IndexError):
        return 0.0
    return used + sum(map(cpu_seconds, children))


def rss_bytes(pid: int) -> int | None:
    """The memory that a process has resident."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def describe() -> dict[str, str | int]:
    """Versions and hardware, for the report."""
    return {
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "protobuf": f"{version('protobuf')} ({_protobuf_backend()})",
        "event loop": f"uvloop {version('uvloop')}" if UVLOOP else "asyncio",
        "atlas": version("atlas-grpc"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": len(cores()),
    }


def _protobuf_backend() -> str:
    return str(api_implementation.Type())


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
