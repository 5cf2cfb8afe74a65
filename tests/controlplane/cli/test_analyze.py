"""`mizzen analyze` on files."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from controlplane.cli.main import command

MESH = """\
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {ports: [{name: web, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: rewievs}
"""
ROUTE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
"""


def _analyze(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command, ["analyze", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_messages_are_told_with_file_and_line_and_an_error_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH)
    (tmp_path / "route.yaml").write_text(ROUTE)
    status, output = _analyze(str(tmp_path))
    assert status == 1
    assert output.splitlines()[0] == (
        "Error [IST0101] (VirtualService shop/reviews) spec.http[0].route[0].destination.subset: no DestinationRule defines "
        f'subset "v1" of "reviews": define it, or correct the name - {tmp_path}/route.yaml:1'
    )
    assert f"{tmp_path}/mesh.yaml:6" in output and output.endswith("resources: 3, messages: 3\n")


@pytest.mark.parametrize(("arguments", "status", "codes"), [
    ([], 0, {"IST0174", "IST0118"}),
    (["--failure-threshold", "warning"], 1, {"IST0174", "IST0118"}),
    (["--output-threshold", "Warning"], 0, {"IST0174"}),
    (["--namespace", "other"], 0, set()),
])  # fmt: skip
def test_thresholds(tmp_path: Path, arguments: list[str], status: int, codes: set[str]) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH)
    result, output = _analyze(*arguments, str(tmp_path / "mesh.yaml"))
    assert result == status
    assert {code for code in ("IST0174", "IST0118") if code in output} == codes


def test_a_fault_of_a_file_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(MESH.replace("host: rewievs", "hots: reviews"))
    status, output = _analyze(str(tmp_path / "bad.yaml"))
    assert status == 1 and f"Error [IST0106] {tmp_path}/bad.yaml:9: DestinationRule reviews: spec.hots" in output
