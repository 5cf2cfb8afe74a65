"""`mizzen token`: tokens of people and of workloads, from making to revoking."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from controlplane.cli.api import Api, ApiError
from controlplane.cli.kubeconfig import find_access
from controlplane.cli.main import command
from tests.controlplane.api.serving import Background, Client
from tests.controlplane.citadel.test_authority import signing_request


@pytest.fixture(scope="module")
def background(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Background]:
    with Background(tmp_path_factory.mktemp("mesh")) as background:
        yield background


def mizzen(background: Background, *arguments: str, status: int = 0) -> str:
    subcommand, rest = arguments[:2], arguments[2:]
    result = CliRunner().invoke(command, [*subcommand, "--kubeconfig", str(background.served.kubeconfig), *rest])
    assert result.exit_code == status, result.output
    return str(result.output)


@pytest.mark.parametrize(("role", "allowed"), [("viewer", False), ("admin", True)])
def test_a_token_with_its_kubeconfig(background: Background, tmp_path: Path, role: str, allowed: bool) -> None:
    path = tmp_path / "ann.kubeconfig"
    mizzen(background, "token", "create", f"--{role}", "ann", "--write-kubeconfig", str(path), "--lifetime", "600")
    assert path.stat().st_mode & 0o777 == 0o600
    api = Api(find_access(kubeconfig=str(path)))
    assert api.request("GET", "/apis")["kind"] == "APIGroupList"
    line = mizzen(background, "token", "list").splitlines()[-1].split()
    assert line[1:4] == [role, "ann", "good"] and "expires" in line
    if allowed:
        assert api.request("POST", "/mizzen/v1/tokens", {"serviceAccount": "a"})["role"] == "workload"
    else:
        with pytest.raises(ApiError, match="forbidden"):
            api.request("POST", "/mizzen/v1/tokens", {"serviceAccount": "a"})
    assert mizzen(background, "token", "revoke", line[0]) == f"{line[0]} revoked\n"
    with pytest.raises(ApiError, match="Unauthorized"):
        api.request("GET", "/apis")


def test_a_join_token_is_printed(background: Background) -> None:
    text = mizzen(background, "token", "create", "--service-account", "reviews", "--namespace", "shop").strip()
    assert text.startswith("mizzen-join-") and text.endswith(background.served.authority.hash)
    line = mizzen(background, "token", "list").splitlines()[-1].split()
    assert line[1:4] == ["workload", "shop/reviews", "unused"]
    assert Client(background, text)("GET", "/api").status == 401
    assert mizzen(background, "token", "list").splitlines()[-1].split()[3] == "unused", "it serves to join alone"
    body = {"token": text, "certificateSigningRequest": signing_request().decode()}
    assert Client(background, "")("POST", "/mizzen/v1/join", body).status == 201
    assert mizzen(background, "token", "list").splitlines()[-1].split()[3] == "used"


@pytest.mark.parametrize(
    "arguments",
    [(), ("--viewer", "a", "--admin", "b"), ("--service-account", "a", "--write-kubeconfig", "x")],
)
def test_what_makes_no_sense(background: Background, arguments: tuple[str, ...]) -> None:
    assert "Error" in mizzen(background, "token", "create", *arguments, status=2)
    assert "there is no token" in mizzen(background, "token", "revoke", "nothing", status=1)
