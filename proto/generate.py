"""Writes the Python stubs in atlas_grpc/_gen from the .proto files (`make gen`), or checks them (`make check-gen`).

The stubs are made with the oldest grpcio-tools that Atlas supports, because generated code refuses to run on a
runtime older than its generator. Two rewrites make them importable from inside the package and picklable: absolute
imports become relative ones, and the module name given to the message builder becomes `__name__`.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import tempfile
from importlib import resources
from pathlib import Path

PROTO = Path(__file__).parent
TARGET = PROTO.parent / "atlas_grpc" / "_gen"
SERVICES = ["atlas/v1/job_service.proto", "atlas/v1/worker_service.proto"]
MESSAGES = ["atlas/v1/job.proto", "buf/validate/validate.proto"]
HEADER = '"""Generated from proto/ by `make gen`; do not edit."""\n'


def generate(out: Path) -> None:
    """Runs protoc into `out` and rewrites what it wrote. Raises SystemExit when protoc fails."""
    from grpc_tools import protoc

    include = [f"-I{PROTO}", f"-I{PROTO / 'third_party'}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    common = [f"--python_out={out}", f"--mypy_out=quiet:{out}"]
    if protoc.main(["protoc", *include, *common, *MESSAGES, *SERVICES]):
        raise SystemExit("protoc failed")
    grpc = [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"]
    if protoc.main(["protoc", *include, *grpc, *SERVICES]):
        raise SystemExit("protoc failed")
    for path in [*out.rglob("*.py"), *out.rglob("*.pyi")]:
        text = path.read_text()
        depth = len(path.relative_to(out).parts)
        path.write_text(stub_relocated(text) if path.suffix == ".pyi" else relocated(text, depth))
    for folder in [out, *(p for p in out.rglob("*") if p.is_dir())]:
        (folder / "__init__.py").write_text(HEADER)


def relocated(text: str, depth: int) -> str:
    """The text of a generated module with its imports of sibling packages made relative to a root `depth` dots up."""
    root = "." * depth
    text = re.sub(r"^from (atlas|buf)(\.[\w.]+)? import", rf"from {root}\1\2 import", text, flags=re.MULTILINE)
    return re.sub(
        r"BuildTopDescriptorsAndMessages\(DESCRIPTOR, '[\w.]+', _globals\)",
        "BuildTopDescriptorsAndMessages(DESCRIPTOR, __name__, _globals)",
        text,
    )


def stub_relocated(text: str) -> str:
    """The same for a type stub, which names siblings in full wherever it uses them."""
    return re.sub(r"(?<![\w./])(atlas\.v1|buf\.validate)\.(\w+_pb2)", r"atlas_grpc._gen.\1.\2", text)


def files(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*.py*")) if p.suffix in {".py", ".pyi"}
    }


def drift(have: dict[str, str], want: dict[str, str]) -> list[str]:
    """What differs between two generated trees, as lines of a unified diff."""
    lines: list[str] = []
    for name in sorted(have.keys() | want.keys()):
        lines += difflib.unified_diff(
            have.get(name, "").splitlines(),
            want.get(name, "").splitlines(),
            f"committed/{name}",
            f"generated/{name}",
            lineterm="",
            n=1,
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the committed stubs are up to date")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        want = files(Path(folder))
    if check:
        found = drift(files(TARGET), want)
        print("\n".join(found[:40]) or "stubs are up to date")
        sys.exit(1 if found else 0)
    for name in files(TARGET).keys() - want.keys():
        (TARGET / name).unlink()
    for name, text in want.items():
        path = TARGET / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{len(want)} files in {TARGET}")


if __name__ == "__main__":
    main()
