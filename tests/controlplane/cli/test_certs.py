"""`mizzen certs`: the authority's certificates and those of workloads, with what is left of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from controlplane.cli import certs
from controlplane.cli.main import command
from tests.controlplane.api.serving import Background, Client
from tests.controlplane.citadel.test_authority import signing_request


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with Background(tmp_path_factory.mktemp("mesh")) as background:
        yield background


def mizzen(background: Background, *arguments: str) -> str:
    access = ("--kubeconfig", str(background.served.kubeconfig))
    result = CliRunner().invoke(command, ["certs", *access, *arguments])
    assert result.exit_code == 0, result.output
    return str(result.output)


def certify(background: Background, account: str, lifetime: int) -> None:
    body = {
        "namespace": "shop",
        "serviceAccount": account,
        "certificateSigningRequest": signing_request().decode(),
        "lifetime": lifetime,
    }
    assert Client(background)("POST", "/mizzen/v1/certificates", body).status == 201


def test_who_has_a_certificate_and_until_when(background: Background) -> None:
    assert "no workload has a certificate" in mizzen(background)
    for account, lifetime in (("reviews", 7200), ("page", 600), ("page", 3700)):
        certify(background, account, lifetime)
    text = mizzen(background)
    root = next(line for line in text.splitlines() if "root, signs" in line)
    assert "O=cluster.local" in root and "3649d" in root and "secp256r1" in root
    lines = [line.split() for line in text.splitlines() if line.strip().startswith("spiffe://")]
    assert [line[0].rpartition("/")[2] for line in lines] == ["page", "reviews"]
    assert lines[0][4].startswith("1h1m") and lines[1][4].startswith("1h59m") and lines[0][5] == "admin"
    assert len([line for line in mizzen(background, "--all").splitlines() if line.strip().startswith("spiffe://")]) == 3
    found: Any = json.loads(mizzen(background, "-o", "json", "reviews"))
    (one,) = found["certificates"]
    assert one["identity"].endswith("/sa/reviews") and one["notAfter"] - one["issuedAt"] == pytest.approx(7200, abs=2)
    assert found["authority"][0]["signing"] is True


@pytest.mark.parametrize(("left", "style"), [(900.0, ""), (301.0, "yellow"), (100.0, "bold red"), (-5.0, "bold red")])
def test_what_is_near_its_end_is_coloured(monkeypatch: pytest.MonkeyPatch, left: float, style: str) -> None:
    monkeypatch.setattr(certs.time, "time", lambda: 10_000.0)
    _, text = certs._ends(10_000.0 + left - 1000, 10_000.0 + left, certs._NEAR)
    assert text.style == style
    assert (text.plain == "expired") == (left < 0)
