"""Keys at rest: with a passphrase nobody finds them in the store's files, and without it nobody opens them."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from controlplane.citadel.authority import ROOT_KEY
from controlplane.citadel.citadel import Citadel
from controlplane.citadel.jwt_keys import KEYS
from controlplane.citadel.sealing import CannotUnseal, Sealing
from tests.controlplane.citadel.test_issuing import with_citadel


async def stored(citadel: Citadel) -> list[object]:
    store = citadel.authority._store
    authority, keys = await store.get(ROOT_KEY), await store.get(KEYS)
    assert authority is not None and keys is not None
    return [json.loads(authority.document)["signers"][0]["key"], json.loads(keys.document)["keys"][0]["key"]]


def test_keys_in_the_store_are_sealed(tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def sealed(citadel: Citadel) -> None:
        assert all(isinstance(one, dict) for one in await stored(citadel))
        seen.append(citadel.authority.pem)

    with_citadel(tmp_path, sealed, passphrase="open sesame", key_type="rsa")
    for path in tmp_path.glob("*"):
        assert b"PRIVATE KEY" not in path.read_bytes(), path
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    with_citadel(tmp_path, sealed, passphrase="open sesame")
    assert seen[0] == seen[1]
    for passphrase in ("", "close sesame"):
        with pytest.raises(CannotUnseal, match="passphrase"):
            with_citadel(tmp_path, sealed, passphrase=passphrase)


def test_keys_that_were_open_are_sealed_when_there_is_a_passphrase(tmp_path: Path) -> None:
    roots: list[bytes] = []

    async def opened(citadel: Citadel) -> None:
        assert all(isinstance(one, str) for one in await stored(citadel))
        roots.append(citadel.authority.pem)

    async def sealed(citadel: Citadel) -> None:
        assert all(isinstance(one, dict) for one in await stored(citadel))
        roots.append(citadel.authority.pem)

    with_citadel(tmp_path, opened)
    with_citadel(tmp_path, sealed, passphrase="open sesame")
    assert roots[0] == roots[1]


def test_what_is_sealed_for_one_purpose_does_not_serve_another() -> None:
    sealing = Sealing("open sesame")
    kept = sealing.seal("secret", "one")
    assert Sealing("open sesame").open(kept, "one") == "secret"
    for wrong, purpose in (
        (kept, "other"),
        ({**kept, "sealed": "AAAA"}, "one"),
        ({**kept, "n": 1}, "one"),
        ({}, "one"),
    ):
        with pytest.raises(CannotUnseal):
            sealing.open(wrong, purpose)
    assert "sesame" not in repr(sealing)
