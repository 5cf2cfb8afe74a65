"""`mizzen ca` and `mizzen certs restore` against a control plane that runs: what is typed, what it says, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from controlplane.cli.main import command
from tests.controlplane.api.serving import Background, Client
from tests.controlplane.citadel.test_authority import signing_request

REVIEWS = "spiffe://cluster.local/ns/shop/sa/reviews"
PAGE = "spiffe://cluster.local/ns/shop/sa/page"


class Mesh:
    """A control plane with the rotation as a leading one runs it, and a command line."""

    def __init__(self, background: Background) -> None:
        self.background = background
        self.citadel = background.served.citadel
        self.client = Client(background)

    def mizzen(self, *arguments: str, status: int = 0) -> str:
        group, name, *rest = arguments
        access = ("--kubeconfig", str(self.background.served.kubeconfig))
        result = CliRunner().invoke(command, [group, name, *access, *rest])
        assert result.exit_code == status, result.output
        return str(result.output)

    def certify(self, account: str) -> x509.Certificate:
        body = {
            "namespace": "shop", "serviceAccount": account, "lifetime": 3600,
            "certificateSigningRequest": signing_request().decode(),
        }  # fmt: skip
        made = self.client("POST", "/mizzen/v1/certificates", body)
        assert made.status == 201, made.body
        return x509.load_pem_x509_certificates(made.json["certificateChain"].encode())[0]

    def refused(self, account: str) -> str:
        body = {
            "namespace": "shop", "serviceAccount": account, "certificateSigningRequest": signing_request().decode()
        }  # fmt: skip
        made = self.client("POST", "/mizzen/v1/certificates", body)
        assert made.status == 403
        return made.message

    @property
    def roots(self) -> list[x509.Certificate]:
        return x509.load_pem_x509_certificates(self.client("GET", "/mizzen/v1/trust-bundle").json["roots"].encode())

    def audited(self, event: str) -> list[dict[str, object]]:
        lines = [json.loads(one) for one in self.citadel.audit.path.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[Mesh]:
    with Background(tmp_path) as background:
        citadel = background.served.citadel

        async def following() -> list[asyncio.Task[None]]:
            work = (citadel.bundles.follow(), citadel.rotations.lead(), citadel.operations.follow_bans())
            return [asyncio.create_task(one) for one in work]

        async def end() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        tasks = background.call(following())
        try:
            yield Mesh(background)
        finally:
            background.call(end())


def test_a_rotation_is_taken_back(mesh: Mesh) -> None:
    old = mesh.certify("reviews")
    (root,) = mesh.roots
    assert "no rotation is under way" in mesh.mizzen("ca", "abort", status=1)
    assert "gate 1 of 3" in mesh.mizzen("ca", "rotate")
    assert len(mesh.roots) == 2
    assert "the old root signs on" in mesh.mizzen("ca", "abort")
    assert mesh.roots == [root]
    assert "no rotation is under way" in mesh.mizzen("ca", "status")
    mesh.certify("reviews").verify_directly_issued_by(root)
    old.verify_directly_issued_by(root)
    (line,) = mesh.audited("rotation-aborted")
    assert line["requester"] == "admin"
    mesh.mizzen("ca", "rotate")
    assert "--force" in mesh.mizzen("ca", "advance", "--gate", "1", status=2)
    assert len(mesh.roots) == 2, "nothing is done without it"
    mesh.mizzen("ca", "advance", "--gate", "1", "--force")
    assert "signs" in mesh.mizzen("ca", "abort", status=1), "what has signed is not taken back"
    assert len(mesh.roots) == 2


def test_gates_are_passed_before_their_time(mesh: Mesh) -> None:
    assert "mizzen ca rotate begins one" in mesh.mizzen("ca", "advance", "--gate", "1", "--force", status=1)
    old = mesh.certify("reviews")  # which nobody confirms or renews
    (before,) = mesh.roots
    assert "confirmed: 0 of 1" in mesh.mizzen("ca", "rotate")
    told = mesh.mizzen("ca", "status")
    assert f"waiting for {REVIEWS}" in told and "has never asked" in told
    refused = mesh.mizzen("ca", "advance", "--gate", "2", "--force", status=1)
    assert "gate 1, not 2" in refused and "mizzen ca status" in refused
    shown = mesh.mizzen("ca", "advance", "--gate", "1", status=2)
    assert f"waiting for {REVIEWS}" in shown, "whom it would break is shown first"
    assert "it signs since" in mesh.mizzen("ca", "advance", "--gate", "1", "--force")
    new = mesh.certify("page")
    after = next(root for root in mesh.roots if root != before)
    new.verify_directly_issued_by(after)
    assert re.search(r"gate 2 of 3[^\n]*\n.*certificates that are not renewed: 1", mesh.mizzen("ca", "status"))
    assert "the new root alone is trusted" in mesh.mizzen("ca", "advance", "--gate", "2", "--force")
    assert mesh.roots == [after]
    assert "mizzen ca rotate begins one" in mesh.mizzen("ca", "advance", "--gate", "3", "--force", status=1)
    assert [line["gate"] for line in mesh.audited("rotation-forced")] == [1, 2]
    assert old.issuer == before.subject != after.subject


def test_what_is_revoked_is_restored(mesh: Mesh) -> None:
    held, lost = (f"{mesh.certify('reviews').serial_number:x}" for _ in range(2))
    mesh.mizzen("certs", "revoke", held, "--reason", "certificateHold")
    mesh.mizzen("certs", "revoke", lost, "--reason", "keyCompromise")
    assert held in mesh.mizzen("certs", "revoked")
    assert f"{held} restored" in mesh.mizzen("certs", "restore", held)
    assert held not in mesh.mizzen("certs", "revoked") and lost in mesh.mizzen("certs", "revoked")
    assert "certificateHold" in mesh.mizzen("certs", "restore", lost, status=1)
    assert "is not revoked" in mesh.mizzen("certs", "restore", held, status=1)
    assert "--identity" in mesh.mizzen("certs", "restore", status=2)
    assert "--identity" in mesh.mizzen("certs", "restore", held, "--identity", PAGE, status=2)
    mesh.certify("page")
    mesh.mizzen("certs", "revoke", "--identity", PAGE)
    assert f"mizzen certs restore --identity {PAGE}" in mesh.refused("page")
    assert f"{PAGE} restored" in mesh.mizzen("certs", "restore", "--identity", PAGE)
    mesh.certify("page")
    assert len(mesh.audited("restored")) == 2
    assert "is not revoked" in mesh.mizzen("certs", "restore", "--identity", PAGE, status=1)
