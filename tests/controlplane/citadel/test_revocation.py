"""The deny list: what is refused because of it, and the lists that openssl makes of it."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509

from controlplane.citadel.authority_state import with_roots
from controlplane.citadel.citadel import Citadel
from controlplane.citadel.signers import new_root, pem
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.certificates import InvalidRequest, NotAllowed
from controlplane.model.credentials import Unauthenticated
from tests.controlplane.citadel.test_authority import der, signing_request
from tests.controlplane.citadel.test_issuing import REVIEWS, SPIFFE_ID, audited, leaf_of, with_citadel
from tests.controlplane.citadel.test_rotation import begin, rotating, until

PAGE = dataclasses.replace(REVIEWS, name="system:serviceaccount:shop:page", service_account="page")


async def certify(citadel: Citadel, caller: object = REVIEWS, lifetime: float = 600) -> bytes:
    return await citadel.issuance.certify(caller, signing_request(), lifetime=lifetime, source="10.0.0.7:5")  # type: ignore[arg-type]


def serial(chain: bytes) -> str:
    return f"{leaf_of(chain).serial_number:x}"


async def refused(citadel: Citadel, chain: bytes) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await citadel.credentials.authenticate(certificate=der(chain))
    return str(caught.value)


def test_a_certificate(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        chain, other = await certify(citadel), await certify(citadel)
        version = citadel.bundles.current.version
        told = await citadel.operations.revoke(serial=serial(chain), identity="", reason="keyCompromise", who="admin")
        assert [one["identity"] for one in told["certificates"]] == [SPIFFE_ID] and told["listProblem"] == ""
        assert "is revoked" in await refused(citadel, chain)
        assert (await citadel.credentials.authenticate(certificate=der(other))).service_account == "reviews"
        bundle = citadel.bundles.current
        assert bundle.version > version
        found = x509.load_pem_x509_crl(bundle.crl.encode())
        assert found.is_signature_valid(citadel.authority.certificate.public_key())  # type: ignore[arg-type]
        (entry,) = found
        assert f"{entry.serial_number:x}" == serial(chain)
        assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason == x509.ReasonFlags.key_compromise
        with pytest.raises(InvalidRequest, match="for good"):
            await citadel.operations.restore(serial=serial(chain), identity="", who="admin")
        (line,) = [line for line in audited(tmp_path) if line["event"] == "revoked"]
        assert line["serials"] == [serial(chain)] and line["requester"] == "admin"

    with_citadel(tmp_path, test)


def test_one_that_is_held_comes_back(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        chain = await certify(citadel)
        text = ":".join(serial(chain).upper()[i : i + 2] for i in range(0, len(serial(chain)), 2))
        await citadel.operations.revoke(serial=text, identity="", reason="certificateHold", who="admin")
        assert "is revoked" in await refused(citadel, chain)
        await citadel.operations.restore(serial=serial(chain), identity="", who="admin")
        assert citadel.bundles.current.crl == ""
        assert (await citadel.credentials.authenticate(certificate=der(chain))).service_account == "reviews"
        with pytest.raises(InvalidRequest, match="is not revoked"):
            await citadel.operations.restore(serial=serial(chain), identity="", who="admin")

    with_citadel(tmp_path, test)


def test_an_identity(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        chains = [await certify(citadel) for _ in range(2)]
        page = await certify(citadel, PAGE)
        _, token = await citadel.tokens.create("shop", "reviews", lifetime=60, who="admin")
        await citadel.operations.revoke(serial="", identity=SPIFFE_ID, reason="unspecified", who="admin")
        for chain in chains:
            assert "is revoked" in await refused(citadel, chain)
        with pytest.raises(NotAllowed, match="restore --identity"):
            await certify(citadel)
        with pytest.raises(NotAllowed, match="is revoked"):
            await citadel.issuance.join(token, signing_request(), lifetime=None, source="10.0.0.7:6")
        assert [line["event"] for line in audited(tmp_path)][-3:] == ["revoked", "refused", "refused"]
        assert (await citadel.credentials.authenticate(certificate=der(page))).service_account == "page"
        assert len(x509.load_pem_x509_crl(citadel.bundles.current.crl.encode())) == 2
        await citadel.operations.restore(serial="", identity=SPIFFE_ID, who="admin")
        fresh = await certify(citadel)
        assert (await citadel.credentials.authenticate(certificate=der(fresh))).service_account == "reviews"
        assert "is revoked" in await refused(citadel, chains[0]), "what was revoked stays so"

    with_citadel(tmp_path, test)


def test_what_expires_leaves_the_list(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        brief, chain = await certify(citadel, lifetime=2), await certify(citadel)
        for one in (brief, chain):
            await citadel.operations.revoke(serial=serial(one), identity="", reason="superseded", who="admin")
        assert len(citadel.operations.denied()["certificates"]) == 2
        while time.time() <= leaf_of(brief).not_valid_after_utc.timestamp():
            await asyncio.sleep(0.05)
        await citadel.rotations._step()
        assert [one["serial"] for one in citadel.operations.denied()["certificates"]] == [serial(chain)]
        assert len(x509.load_pem_x509_crl(citadel.bundles.current.crl.encode())) == 1

    with_citadel(tmp_path, test)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"serial": "no"}, "hexadecimal"),
        ({"serial": "f" * 41}, "hexadecimal"),
        ({"serial": "abc"}, "nothing is to be revoked"),
        ({"identity": "spiffe://other/ns/a/sa/b"}, "must be spiffe://cluster.local"),
        ({"identity": SPIFFE_ID, "reason": "certificateHold"}, "can be held"),
        ({"identity": SPIFFE_ID, "reason": "because"}, "must be one of"),
    ],
)
def test_what_cannot_be_revoked(tmp_path: Path, fields: dict[str, str], message: str) -> None:
    async def test(citadel: Citadel) -> None:
        with pytest.raises(InvalidRequest, match=message):
            await citadel.operations.revoke(
                **{"serial": "", "identity": "", "reason": "unspecified", **fields}, who="admin"
            )

    with_citadel(tmp_path, test)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")
def test_openssl_goes_by_the_lists_while_the_root_rotates(tmp_path: Path) -> None:
    def verdict(citadel: Citadel, chain: bytes) -> str:
        (tmp_path / "leaf.pem").write_bytes(pem(leaf_of(chain)))
        (tmp_path / "roots.pem").write_text("".join(citadel.bundles.current.roots))
        (tmp_path / "crl.pem").write_text(citadel.bundles.current.crl)
        lists = ["-crl_check", "-CRLfile", "crl.pem"] if citadel.bundles.current.crl else []
        done = subprocess.run(
            ["openssl", "verify", "-x509_strict", "-CAfile", "roots.pem", *lists, "leaf.pem"],
            cwd=tmp_path, capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        return "OK" if done.returncode == 0 else done.stderr + done.stdout

    async def test(citadel: Citadel) -> None:
        bad, good = await certify(citadel), await certify(citadel, PAGE)
        await citadel.operations.revoke(serial=serial(bad), identity="", reason="keyCompromise", who="admin")

        def judge(*more: bytes) -> None:
            assert citadel.bundles.current.crl.count("BEGIN X509 CRL") == len(citadel.bundles.current.roots)
            assert "certificate revoked" in verdict(citadel, bad)
            for chain in (good, *more):
                assert verdict(citadel, chain) == "OK"

        judge()
        await begin(citadel)
        judge()
        await citadel.operations.advance(gate=1, who="admin")
        fresh = await certify(citadel, PAGE)
        judge(fresh)
        await citadel.operations.revoke(serial=serial(fresh), identity="", reason="keyCompromise", who="admin")
        assert "certificate revoked" in verdict(citadel, fresh)
        await citadel.operations.advance(gate=2, who="admin")
        assert citadel.bundles.current.crl.count("BEGIN X509 CRL") == 1
        assert verdict(citadel, await certify(citadel, PAGE)) == "OK"

    rotating(tmp_path, test)


def test_a_root_that_nobody_here_lists_for_means_no_lists(tmp_path: Path) -> None:
    """With one, whoever is of the other root would be refused by all: the control plane alone refuses then, and says so."""

    async def test(citadel: Citadel) -> None:
        chain = await certify(citadel)
        another = new_root("cluster.local").root
        await citadel.authority.change(lambda state: with_roots(state, [another]), who="test")
        told = await citadel.operations.revoke(serial=serial(chain), identity="", reason="superseded", who="admin")
        assert "no signer here" in told["listProblem"] and citadel.bundles.current.crl == ""
        assert "is revoked" in await refused(citadel, chain)

    with_citadel(tmp_path, test)


def test_a_ban_reaches_what_another_control_plane_has_issued(tmp_path: Path) -> None:
    """Each knows what it has issued itself, and puts that of the banned onto the list of all; also what it had issued before it
    was started again."""

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        directories = [tmp_path / name for name in ("one", "other", "third")]
        for directory in directories:
            directory.mkdir()
        one, other, third = [await Citadel.open(store, directory) for directory in directories]
        chains = [await certify(citadel) for citadel in (one, other, third)]
        await third.close()  # it is away while the identity is banned
        tasks = [
            asyncio.create_task(work)
            for citadel in (one, other)
            for work in (citadel.bundles.follow(), citadel.operations.follow_bans())
        ]
        told = await one.operations.revoke(serial="", identity=SPIFFE_ID, reason="keyCompromise", who="admin")
        assert [entry["serial"] for entry in told["certificates"]] == [serial(chains[0])]
        serials = list(map(serial, chains))
        await until(
            lambda: listed(one) == listed(other) == set(serials[:2]), "what the other has issued is on the list"
        )
        third = await Citadel.open(store, directories[2])
        tasks += map(asyncio.create_task, (third.bundles.follow(), third.operations.follow_bans()))
        await until(lambda: listed(one) == listed(other) == listed(third) == set(serials), "and the third's, too")
        version = one.authority.state.version
        await one.operations.restore(serial="", identity=SPIFFE_ID, who="admin")
        await until(lambda: other.authority.state.version > version, "the other hears of it")
        assert listed(other) == set(serials), "certificates stay revoked"
        new = await certify(other)
        assert (await one.credentials.authenticate(certificate=der(new))).service_account == "reviews"
        for chain in chains:
            assert "is revoked" in await refused(other, chain)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for citadel in (one, other, third):
            await citadel.close()
        await store.close()

    def listed(citadel: Citadel) -> set[str]:
        crl = citadel.bundles.current.crl
        return {f"{entry.serial_number:x}" for entry in x509.load_pem_x509_crl(crl.encode())} if crl else set()

    asyncio.run(main())
