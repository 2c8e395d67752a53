"""Writes atlas_grpc/_gen/comments.json, the comments of the .proto files by full name (`make gen`), or checks it.

Python stubs carry descriptors but no comments; the OpenAPI document that the server builds from the descriptors takes
its descriptions from this file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FileDescriptorSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto

PROTO = Path(__file__).parent
TARGET = PROTO.parent / "atlas_grpc" / "_gen" / "comments.json"
PACKAGES = ("atlas.", "google.rpc")

Place = tuple[int, ...]


def describe() -> FileDescriptorSet:
    """All files of the contract with their source information. Raises SystemExit when protoc fails."""
    from grpc_tools import protoc

    include = [f"-I{PROTO}", f"-I{PROTO / 'third_party'}", f"-I{resources.files('grpc_tools') / '_proto'}"]
    files = [str(path.relative_to(PROTO)) for path in sorted((PROTO / "atlas").rglob("*.proto"))]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "all.binpb"
        if protoc.main(
            ["protoc", *include, "--include_imports", "--include_source_info", f"--descriptor_set_out={out}", *files]
        ):
            raise SystemExit("protoc failed")
        return FileDescriptorSet.FromString(out.read_bytes())


def comments(files: FileDescriptorSet) -> dict[str, str]:
    """The leading comment of every message, field, oneof, enum, value, service and method that has one."""
    found: dict[str, str] = {}
    for file in files.file:
        if not file.package.startswith(PACKAGES):
            continue
        texts = {tuple(at.path): at.leading_comments for at in file.source_code_info.location if at.leading_comments}
        for path, name in _names(file):
            if path in texts:
                found[f"{file.package}.{name}"] = _text(texts[path])
    return found


def _names(file: FileDescriptorProto) -> Iterator[tuple[Place, str]]:
    """The place and the name of everything in a file; the numbers are the fields of descriptor.proto."""
    for index, message in enumerate(file.message_type):
        yield from _message((4, index), message.name, message)
    for index, enum in enumerate(file.enum_type):
        yield from _enum((5, index), enum.name, enum)
    for index, service in enumerate(file.service):
        yield (6, index), service.name
        for number, method in enumerate(service.method):
            yield (6, index, 2, number), f"{service.name}.{method.name}"


def _message(path: Place, name: str, message: DescriptorProto) -> Iterator[tuple[Place, str]]:
    yield path, name
    for index, field in enumerate(message.field):
        yield (*path, 2, index), f"{name}.{field.name}"
    for index, oneof in enumerate(message.oneof_decl):
        yield (*path, 8, index), f"{name}.{oneof.name}"
    for index, nested in enumerate(message.nested_type):
        yield from _message((*path, 3, index), f"{name}.{nested.name}", nested)
    for index, enum in enumerate(message.enum_type):
        yield from _enum((*path, 4, index), f"{name}.{enum.name}", enum)


def _enum(path: Place, name: str, enum: EnumDescriptorProto) -> Iterator[tuple[Place, str]]:
    yield path, name
    for index, value in enumerate(enum.value):
        yield (*path, 2, index), f"{name}.{value.name}"


def _text(comment: str) -> str:
    """Lines without their indentation; a blank line stays a paragraph."""
    return "\n".join(line.strip() for line in comment.strip().splitlines())


def main() -> None:
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the committed file is up to date")
    check = parser.parse_args().check
    want = json.dumps(comments(describe()), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if check:
        same = TARGET.is_file() and TARGET.read_text() == want
        print("comments are up to date" if same else f"{TARGET.name} is not up to date: run `make gen`")
        sys.exit(0 if same else 1)
    TARGET.write_text(want)
    print(f"{TARGET}")


if __name__ == "__main__":
    main()
