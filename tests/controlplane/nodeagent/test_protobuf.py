"""The generated messages are those of the .proto file, and stand beside another library's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from controlplane.nodeagent.spiffe import workload_pb2
from tests.running import REPOSITORY

PROTO = "controlplane/nodeagent/spiffe/workload.proto"


def test_generated_code_is_of_the_proto_file(tmp_path: Path) -> None:
    """Compared as descriptors: the text of generated code differs from one compiler to the next."""
    pytest.importorskip("grpc_tools", reason="grpcio-tools has the compiler")
    out = tmp_path / "set"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={out}", PROTO],
        cwd=REPOSITORY, check=True, timeout=60,
    )  # fmt: skip
    (compiled,) = FileDescriptorSet.FromString(out.read_bytes()).file
    committed = FileDescriptorProto()
    workload_pb2.DESCRIPTOR.CopyToProto(committed)
    for one in (compiled, committed):
        _without_json_names(one.message_type)
    assert committed == compiled


def _without_json_names(messages: object) -> None:
    for message in messages:  # type: ignore[attr-defined]
        for field in message.field:
            field.ClearField("json_name")
        _without_json_names(message.nested_type)


def test_numbers_are_those_of_py_spiffe() -> None:
    theirs = pytest.importorskip("spiffe._proto.workload_pb2", reason="py-spiffe is not installed")
    for name, message in theirs.DESCRIPTOR.message_types_by_name.items():
        ours = workload_pb2.DESCRIPTOR.message_types_by_name[name]
        assert {field.name: (field.number, field.type) for field in ours.fields} == {
            field.name: (field.number, field.type) for field in message.fields
        }
