"""Faults of resources in files, with file and line; and the command that tells them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from controlplane.cli.main import command
from controlplane.galley.validation.files import read_mesh_config_file, read_resources, validate_files

GOOD = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - route:
    - destination:
        host: reviews
"""

BAD = """\
# The first document is empty.
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: ratings
spec:
  hosts: [ratings]
  http:
  - match:
    - headers:
        x-user.name:
          regex: "(?=a)"
    route:
    - destination:
        host: ratings
      weight: "1"
    - weight: 2
    timeOut: 1s
---
apiVersion: v1
kind: List
items:
- apiVersion: networking.istio.io/v1
  kind: DestinationRule
  metadata: {name: first}
  spec: {host: a}
- apiVersion: networking.istio.io/v1
  kind: DestinationRule
  metadata: {name: second}
  spec:
    host: a
    trafficPolicy:
      tls: {mode: SOME}
"""


def _file(directory: Path, text: str, name: str = "a.yaml") -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


def test_every_fault_has_the_line_of_its_field(tmp_path: Path) -> None:
    found = validate_files([_file(tmp_path, BAD)])
    assert [(problem.line, problem.resource, problem.cause.path) for problem in found] == [
        (13, "VirtualService ratings", "spec.http[0].match[0].headers[x-user.name].regex"),
        (17, "VirtualService ratings", "spec.http[0].route[0].weight"),
        (18, "VirtualService ratings", "spec.http[0].route[1].destination"),
        (19, "VirtualService ratings", "spec.http[0].timeOut"),
        (34, "DestinationRule second", "spec.trafficPolicy.tls.mode"),
    ]
    assert "did you mean timeout?" in str(found[3]) and str(found[3]).startswith(f"{tmp_path}/a.yaml:19: ")


def test_what_is_right_is_read_with_its_origin(tmp_path: Path) -> None:
    resources, problems = read_resources([_file(tmp_path, GOOD), _file(tmp_path, BAD, "b.yaml")])
    assert [str(resource.key) for resource in resources] == [
        "VirtualService/default/reviews",
        "DestinationRule/default/first",
    ]
    assert resources[1].origin.line == 24
    assert len(problems) == 5


def test_json_has_lines_too(tmp_path: Path) -> None:
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"x": 1}}
    (problem,) = validate_files([_file(tmp_path, json.dumps(document, indent=1), "a.json")])
    assert (problem.line, problem.cause.path) == (8, "data[x]")


def test_what_cannot_be_read_is_a_fault_of_the_file(tmp_path: Path) -> None:
    broken = _file(tmp_path, "a: [\nb: }\n", "broken.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff")
    found = validate_files(
        [broken, str(tmp_path / "none.yaml"), str(tmp_path / "bytes.yaml"), _file(tmp_path, "- 1\n")]
    )
    assert [(Path(problem.path).name, problem.line > 0) for problem in found] == [
        ("broken.yaml", True),
        ("none.yaml", False),
        ("bytes.yaml", False),
        ("a.yaml", True),
    ]


def test_the_same_resource_twice_in_a_file_is_a_fault_of_the_second(tmp_path: Path) -> None:
    (problem,) = validate_files([_file(tmp_path, f"{GOOD}---\n{GOOD}")])
    assert problem.line == 13 and "at line 1:" in problem.cause.message


def test_directories_stand_for_their_files_which_may_be_there_to_choose_from(tmp_path: Path) -> None:
    (tmp_path / "below" / ".hidden").mkdir(parents=True)
    paths = [_file(tmp_path, GOOD), _file(tmp_path / "below", GOOD, "b.yml")]
    _file(tmp_path, "not: looked at", ".hidden.yaml")
    _file(tmp_path / "below" / ".hidden", "nor: this")
    _file(tmp_path, "nor: this", "readme.txt")
    resources, problems = read_resources([str(tmp_path)])
    assert [resource.origin.path for resource in resources] == paths and problems == []


@pytest.mark.parametrize(
    ("text", "status", "said"), [(GOOD, 0, "right: 1, faults: 0"), (BAD, 1, "right: 1, faults: 5")]
)
def test_the_command_tells_all_and_its_status_says_whether(tmp_path: Path, text: str, status: int, said: str) -> None:
    result = CliRunner().invoke(command, ["validate", _file(tmp_path, text)])
    assert result.exit_code == status and said in result.output


def test_the_configuration_of_the_mesh_in_a_file_of_its_own(tmp_path: Path) -> None:
    right = _file(tmp_path, "outboundTrafficPolicy:\n  mode: REGISTRY_ONLY\n", "right.yaml")
    found, problems = read_mesh_config_file(right)
    assert found is not None and found.outbound_traffic_policy.mode == "REGISTRY_ONLY" and problems == []
    wrong = _file(tmp_path, "rootNamespace: A\noutboundTrafficPolicy:\n  mode: NEVER\n  port: 1\n", "wrong.yaml")
    found, problems = read_mesh_config_file(wrong)
    assert found is None
    assert [(problem.line, problem.cause.path) for problem in problems] == [
        (3, "outboundTrafficPolicy.mode"),
        (4, "outboundTrafficPolicy.port"),
    ]
    lacking = _file(tmp_path, "accessLogFile: /dev/stdout\ndiscoverySelectors: [{}]\n", "lacking.yaml")
    assert [str(problem) for problem in read_mesh_config_file(lacking)[1]] == [
        f"{lacking}:2: MeshConfig: discoverySelectors: is not implemented: all namespaces are in the mesh"
    ]
    (deep,) = read_mesh_config_file(_file(tmp_path, "a: " + "[" * 100_000, "deep.yaml"))[1]
    assert deep.line == 1 and "nested" in deep.cause.message
    assert read_mesh_config_file(str(tmp_path / "none.yaml"))[1][0].line == 0
    assert read_mesh_config_file(_file(tmp_path, "", "empty.yaml"))[0] is not None


def test_the_command_warns_of_what_nothing_acts_upon(tmp_path: Path) -> None:
    policy = GOOD.partition("spec:")[0].replace("networking", "telemetry").replace("VirtualService", "Telemetry")
    result = CliRunner().invoke(
        command, ["validate", _file(tmp_path, f"{policy}spec: {{tracing: [{{disableSpanReporting: true}}]}}\n")]
    )
    assert result.exit_code == 0
    assert "Telemetry/default/reviews: warning: spec.tracing: has no effect yet" in result.output


def test_the_command_reads_standard_input() -> None:
    result = CliRunner().invoke(command, ["validate", "-"], input=BAD)
    assert result.exit_code == 1 and "-:19: VirtualService ratings: spec.http[0].timeOut" in result.output
