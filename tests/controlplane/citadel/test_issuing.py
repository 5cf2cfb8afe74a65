"""Issuing: who gets which certificate, for how long, and what of it the audit log says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from controlplane.citadel.allowance import Allowance
from controlplane.citadel.authority import account_of
from controlplane.citadel.citadel import Citadel
from controlplane.citadel.issuing import Lifetimes
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.certificates import InvalidRequest, NotAllowed, TooOften
from controlplane.model.credentials import Identity, Means, Role, Unauthenticated
from tests.controlplane.citadel.test_authority import signing_request

REVIEWS = Identity(Role.WORKLOAD, "system:serviceaccount:shop:reviews", "shop", "reviews", Means.CERTIFICATE, "ab")
ADMIN = Identity(Role.ADMIN, "admin")
SPIFFE_ID = "spiffe://cluster.local/ns/shop/sa/reviews"


def with_citadel(directory: Path, test: Callable[[Citadel], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        store = await SqliteStore.open(directory / "store.db")
        try:
            citadel = await Citadel.open(store, directory, **options)
            try:
                await test(citadel)
            finally:
                await citadel.close()
        finally:
            await store.close()

    asyncio.run(main())


def audited(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "audit.jsonl").read_text().splitlines()]


def leaf_of(chain: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain)[0]


def identities(chain: bytes) -> list[str]:
    names = leaf_of(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def seconds(chain: bytes) -> float:
    leaf = leaf_of(chain)
    return (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds() - 300  # the skew


def test_a_join_token_is_traded_once_and_a_slip_does_not_cost_it(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        token, text = await citadel.tokens.create("shop", "reviews", lifetime=60, who="admin")
        with pytest.raises(InvalidRequest, match="PEM"):
            await citadel.issuance.join(text, b"noise", lifetime=None, source="127.0.0.1:5")
        chain = await citadel.issuance.join(text, signing_request(), lifetime=None, source="127.0.0.1:5")
        assert identities(chain) == [SPIFFE_ID] and seconds(chain) == 86400
        with pytest.raises(Unauthenticated, match="used before"):
            await citadel.issuance.join(text, signing_request(), lifetime=None, source="127.0.0.1:5")
        with pytest.raises(Unauthenticated, match="join token"):
            admin = (await citadel.tokens.issue(Role.ADMIN, "admin"))[1]
            await citadel.issuance.join(admin, signing_request(), lifetime=None, source="127.0.0.1:5")
        slip, issued, replay, other = audited(tmp_path)
        assert [line["event"] for line in (slip, issued, replay, other)] == ["refused", "issued", "refused", "refused"]
        assert issued["serial"] == f"{leaf_of(chain).serial_number:x}" and issued["identity"] == SPIFFE_ID
        assert issued["requester"] == "join:shop/reviews" and issued["authenticated"] == f"join token {token.id}"
        assert issued["source"] == "127.0.0.1:5" and issued["lifetime"] == 86400
        assert "used before" in replay["reason"] and text.split("-")[3] not in (tmp_path / "audit.jsonl").read_text()

    with_citadel(tmp_path, test)


def test_of_many_who_trade_one_token_at_once_one_gets_a_certificate(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        _, text = await citadel.tokens.create("shop", "reviews", lifetime=60, who="admin")
        results = await asyncio.gather(
            *(citadel.issuance.join(text, signing_request(), lifetime=None, source="a:1") for _ in range(6)),
            return_exceptions=True,
        )
        assert len([one for one in results if isinstance(one, bytes)]) == 1
        assert all(isinstance(one, bytes | Unauthenticated) for one in results)
        listed = citadel.issuance.issued()
        events = [(line["event"], line["serial"]) for line in audited(tmp_path) if "serial" in line]
        handed_out = {serial for event, serial in events if event == "issued"} - {
            serial for event, serial in events if event == "withdrawn"
        }
        assert {one.serial for one in listed} == handed_out and len(handed_out) == 1

    with_citadel(tmp_path, test)

    async def again(citadel: Citadel) -> None:
        assert len(citadel.issuance.issued()) == 1, "it is known after a restart"

    with_citadel(tmp_path, again)


def test_a_workload_gets_its_own_identity_and_an_admin_any(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        certify = citadel.issuance.certify
        assert identities(await certify(REVIEWS, signing_request(), lifetime=None, source="")) == [SPIFFE_ID]
        with pytest.raises(NotAllowed, match="another"):
            await certify(
                REVIEWS, signing_request(), namespace="shop", service_account="page", lifetime=None, source=""
            )
        chain = await certify(ADMIN, signing_request(), namespace="a", service_account="b", lifetime=None, source="")
        assert identities(chain) == ["spiffe://cluster.local/ns/a/sa/b"]
        with pytest.raises(InvalidRequest, match="for whom"):
            await certify(ADMIN, signing_request(), lifetime=None, source="")
        with pytest.raises(NotAllowed, match="may read"):
            viewer = Identity(Role.VIEWER, "looker")
            await certify(viewer, signing_request(), namespace="a", service_account="b", lifetime=None, source="")
        assert [line["event"] for line in audited(tmp_path)] == ["issued", "refused", "issued", "refused", "refused"]

    with_citadel(tmp_path, test)


def test_one_workload_does_not_have_certificates_and_tokens_without_end(tmp_path: Path) -> None:
    """Others of its identity on other machines are not kept from theirs, nor is an admin, or who has a join token."""

    async def test(citadel: Citadel) -> None:
        issuance, csr = citadel.issuance, signing_request()
        here, there = "10.0.0.1:50000", "10.0.0.2:50000"
        for _ in range(30):
            await issuance.certify(REVIEWS, csr, lifetime=None, source=here)
            await issuance.jwt_svid(REVIEWS, ["a" * 1024] * 32, lifetime=None, source=here)
        for _ in range(3):  # it may have one each second
            with pytest.raises(TooOften, match=r"the next in (0\.\d|1\.0) s") as caught:
                for _ in range(3):
                    await issuance.certify(REVIEWS, csr, lifetime=None, source="10.0.0.1:50001")
            assert 0 < caught.value.wait <= 1
        with pytest.raises(TooOften):
            for _ in range(3):
                await issuance.jwt_svid(REVIEWS, ["a"], lifetime=None, source=here)
        await issuance.certify(REVIEWS, csr, lifetime=None, source=there)
        other = Identity(Role.WORKLOAD, "x", "shop", "page", Means.CERTIFICATE, "cd")
        await issuance.certify(other, csr, lifetime=None, source=here)
        for _ in range(100):
            await issuance.certify(ADMIN, csr, namespace="shop", service_account="reviews", lifetime=None, source=here)
        _, token = await citadel.tokens.create("shop", "reviews", lifetime=60, who="admin")
        await issuance.join(token, csr, lifetime=None, source=here)
        lines = audited(tmp_path)
        assert lines[-1]["event"] == "issued" and any(line["event"] == "refused" for line in lines)
        assert max(len(json.dumps(line)) for line in lines) < 1000
        (first, rest) = next(line["audience"] for line in lines if line["event"] == "jwt-svid")
        assert first == "a" * 256 and rest.startswith("... 32 in all, sha256:")

    with_citadel(tmp_path, test)


def test_an_allowance_comes_back_with_time_and_remembers_so_many() -> None:
    now = [100.0]
    allowance = Allowance(3, 2, lambda: now[0], most=2)
    assert [allowance.take("a") for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    now[0] += 0.5
    assert [allowance.take("a") for _ in range(2)] == [0, 0.5]
    now[0] += 100
    assert [allowance.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert allowance.take("b") == allowance.take("c") == 0 and len(allowance._spent) == 2
    assert allowance.take("a") == 0, "it was forgotten"


ODD_NAMESPACES = ("..", ".", "Shop", "a.b", "a_b", "-a", "a/b", "x" * 64, "a\n")
ODD_ACCOUNTS = ("..", ".", "Page", "a..b", ".a", "a_b", "a/b", "x" * 254, "a\n")


@pytest.mark.parametrize(
    ("namespace", "account"), [*((one, "page") for one in ODD_NAMESPACES), *(("shop", one) for one in ODD_ACCOUNTS)]
)
def test_names_that_kubernetes_does_not_have_get_no_identity_on_any_way(
    tmp_path: Path, namespace: str, account: str
) -> None:
    """An admin who names them, a token or a certificate of them, and a token for them."""

    async def test(citadel: Citadel) -> None:
        issuance, wrong = citadel.issuance, "is not a DNS|characters"
        with pytest.raises(InvalidRequest, match=wrong):
            await issuance.certify(
                ADMIN, signing_request(), namespace=namespace, service_account=account, lifetime=None, source=""
            )
        bearer = Identity(Role.WORKLOAD, "x", namespace, account, Means.KUBERNETES)
        with pytest.raises(InvalidRequest, match=wrong):
            await issuance.certify(bearer, signing_request(), lifetime=None, source="")
        with pytest.raises(InvalidRequest, match=wrong):
            await issuance.jwt_svid(bearer, ["a"], lifetime=None, source="")
        _, token = await citadel.tokens.create(namespace, account, lifetime=60, who="admin")
        with pytest.raises(InvalidRequest, match=wrong):
            await issuance.join(token, signing_request(), lifetime=None, source="")
        assert account_of(f"spiffe://cluster.local/ns/{namespace}/sa/{account}", "cluster.local") is None
        assert {line["event"] for line in audited(tmp_path)} == {"refused"} and not issuance.issued()

    with_citadel(tmp_path, test)


def test_a_lifetime_is_what_was_asked_for_up_to_the_maximum(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        async def lived(lifetime: float | None) -> float:
            return seconds(await citadel.issuance.certify(REVIEWS, signing_request(), lifetime=lifetime, source=""))

        assert await lived(None) == 3600
        assert await lived(5) == 5
        assert await lived(7200) == 7200
        for wrong in (7201, 0, -5, float("nan")):
            with pytest.raises(InvalidRequest, match="7200"):
                await lived(wrong)

    with_citadel(tmp_path, test, lifetimes=Lifetimes(3600, 7200))
