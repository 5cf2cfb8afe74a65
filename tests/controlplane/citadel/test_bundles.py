"""The trust bundle: the same at all control planes on a store, told to who waits, and what py-spiffe makes of it."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.citadel import bundles
from controlplane.citadel.authority_state import with_roots, with_signer
from controlplane.citadel.citadel import Citadel
from controlplane.citadel.signers import new_root
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.certificates import TrustBundle
from tests.controlplane.citadel.test_authority import der, signing_request
from tests.controlplane.citadel.test_issuing import REVIEWS, SPIFFE_ID, leaf_of, with_citadel


def test_control_planes_on_one_store_have_one_bundle(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        (tmp_path / "other").mkdir()
        one, other = await Citadel.open(store, tmp_path), await Citadel.open(store, tmp_path / "other")
        following = [asyncio.create_task(each.bundles.follow()) for each in (one, other)]
        before = other.bundles.current
        assert one.bundles.current == before
        old = await one.issuance.certify(REVIEWS, signing_request(), lifetime=None, source="")
        waiting = asyncio.create_task(other.bundles.changed(before.version, 20))
        another = new_root("cluster.local")
        await one.authority.change(lambda state: with_roots(state, [another.root]), who="test")
        told = await waiting
        assert told == one.bundles.current and told.version > before.version and len(told.roots) == 2
        assert other.authority.certificate == leaf_root(old), "a root that is on its way in signs nothing"
        waiting = asyncio.create_task(other.bundles.changed(told.version, 20))
        await one.authority.change(lambda state: with_signer(state, another), who="test")
        assert (await waiting).roots == (told.roots[1], told.roots[0])
        new = await other.issuance.certify(REVIEWS, signing_request(), lifetime=None, source="")
        leaf_of(new).verify_directly_issued_by(another.root)
        for each in (one, other):
            for chain in (old, new):
                assert (await each.credentials.authenticate(certificate=der(chain))).service_account == "reviews"
        waiting = asyncio.create_task(one.bundles.changed(one.bundles.current.version, 20))
        one.bundles.close()
        assert await waiting == one.bundles.current
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
        await one.close()
        await other.close()
        await store.close()

    def leaf_root(chain: bytes) -> x509.Certificate:
        return x509.load_pem_x509_certificates(chain)[-1]

    asyncio.run(main())


@pytest.mark.parametrize("first", ["roots", "keys"])
def test_a_version_says_one_thing_whoever_reads_while_another_writes(tmp_path: Path, first: str) -> None:
    """One control plane changes roots and keys between the two looks of another: who has a version has its roots, and who waits
    by it hears of all."""

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        (tmp_path / "other").mkdir()
        one, other = await Citadel.open(store, tmp_path), await Citadel.open(store, tmp_path / "other")
        told: list[TrustBundle] = []
        real = other.authority.reload if first == "keys" else other.jwt_keys.reload

        async def roots() -> None:
            await one.authority.change(lambda state: with_roots(state, [new_root("cluster.local").root]), who="test")

        async def keys() -> None:
            one.jwt_keys._clock = lambda: time.time() + 8 * 86400
            await one.jwt_keys.renew()

        async def meanwhile() -> None:
            owner.reload = real  # type: ignore[attr-defined]
            for change in (roots, keys) if first == "roots" else (keys, roots):
                await change()
            await real()
            told.append(other.bundles.current)

        owner: Any = other.authority if first == "keys" else other.jwt_keys
        owner.reload = meanwhile
        following = asyncio.create_task(other.bundles.follow())
        began = other.bundles.current
        last = await other.bundles.changed(began.version, 10)
        seen = [began, *told, last]
        while len(last.roots) < 2 or len(last.jwks["keys"]) < 2 or last.version < one.authority.state.version:
            last = await other.bundles.changed(last.version, 10)
            seen.append(last)
            assert len(seen) < 10
        await asyncio.sleep(0.2)  # nothing that is still under way changes what was told
        seen.append(other.bundles.current)
        for each in seen:
            assert all(each == another for another in seen if another.version == each.version)
            if each.version >= last.version:
                assert len(each.roots) == 2
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await one.close()
        await other.close()
        await store.close()

    asyncio.run(main())


def test_nothing_is_signed_after_the_authority_has_expired_and_nothing_outlives_it(tmp_path: Path) -> None:
    async def test(citadel: Citadel) -> None:
        brief = new_root("cluster.local", lifetime=datetime.timedelta(seconds=2))
        await citadel.authority.change(lambda state: with_signer(state, brief), who="test")
        leaf = leaf_of(await citadel.issuance.certify(REVIEWS, signing_request(), lifetime=None, source=""))
        assert leaf.not_valid_after_utc == brief.root.not_valid_after_utc
        while datetime.datetime.now(datetime.UTC) < brief.ends:
            await asyncio.sleep(0.05)
        with pytest.raises(Exception, match="own certificate has expired"):
            await citadel.issuance.certify(REVIEWS, signing_request(), lifetime=None, source="")

    with_citadel(tmp_path, test)


@pytest.mark.parametrize("key_type", ["ecdsa", "rsa"])
def test_what_is_issued_and_told_is_right_for_py_spiffe(tmp_path: Path, key_type: str) -> None:
    spiffe = pytest.importorskip("spiffe", reason="py-spiffe is not installed")

    async def test(citadel: Citadel) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        chain = await citadel.issuance.certify(REVIEWS, signing_request(key), lifetime=None, source="")
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        svid = spiffe.X509Svid.parse(chain, private)
        assert str(svid.spiffe_id) == SPIFFE_ID
        domain = spiffe.TrustDomain("cluster.local")
        bundle = citadel.issuance.bundle()
        roots = spiffe.X509Bundle.parse(domain, "".join(bundle.roots).encode()).x509_authorities
        assert roots == {citadel.authority.certificate}
        token, _ = await citadel.issuance.jwt_svid(REVIEWS, ["reports"], lifetime=None, source="")
        keys = spiffe.JwtBundle.parse(domain, json.dumps(bundle.jwks).encode())
        assert str(spiffe.JwtSvid.parse_and_validate(token, keys, {"reports"}).spiffe_id) == SPIFFE_ID
        with pytest.raises(Exception, match=r"(?i)audience"):
            spiffe.JwtSvid.parse_and_validate(token, keys, {"others"})
        found = citadel.issuance.spiffe_bundle()
        assert found["spiffe_sequence"] == bundle.version and found["spiffe_refresh_hint"] == bundle.refresh_hint
        x509_key, jwt_key = found["keys"]
        assert (x509_key["use"], jwt_key["use"]) == ("x509-svid", "jwt-svid")
        (encoded,) = x509_key["x5c"]
        assert x509.load_der_x509_certificate(base64.b64decode(encoded)) == citadel.authority.certificate
        numbers = citadel.authority.certificate.public_key().public_numbers()  # type: ignore[union-attr]
        name = "x" if key_type == "ecdsa" else "n"
        text = x509_key[name]
        value = int.from_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        assert value == getattr(numbers, name)

    with_citadel(tmp_path, test, key_type=key_type)


def test_confirmations_from_many_addresses_push_out_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundles, "_MOST_OF_ONE", 10)
    monkeypatch.setattr(bundles, "_MOST_CONFIRMATIONS", 25)

    async def test(citadel: Citadel) -> None:
        told = citadel.bundles
        told.confirm("page", "10.0.0.1", 1)
        for number in range(200):
            told.confirm("reviews", f"2001:db8::{number:x}", 1)
        told.confirm("page", "10.0.0.1", 2)
        assert [one.source for one in told.confirmations() if one.identity == "reviews"] == [
            f"2001:db8::{number:x}" for number in range(190, 200)
        ]
        assert told.confirmations()[-1].version == 2 and len(told.confirmations()) == 11
        for number in range(30):
            told.confirm(f"other-{number}", "10.0.0.2", 1)
        assert len(told.confirmations()) == 25 and told.confirmations()[-1].identity == "other-29"
        assert sum(map(len, told._sources.values())) == 25 and all(told._sources.values())

    with_citadel(tmp_path, test)
