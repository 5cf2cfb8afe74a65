"""Keys of JWT-SVIDs follow one another: whoever holds the trust bundle can verify every token that is good."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import jwt
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.citadel.jwt_keys import LONGEST, JwtKey, JwtKeys, _new_key, signing, succession
from controlplane.citadel.sealing import Sealing
from controlplane.galley.sqlite_store import SqliteStore

HINT = 300.0  # seconds between two looks at the bundle
KEY = _new_key(0.0).key


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(1.0, 40 * 3600.0), min_size=5, max_size=60))
def test_a_token_is_verified_by_the_bundle_of_any_time_that_it_is_good(pauses: list[float]) -> None:
    made = 0

    def make(now: float) -> JwtKey:
        nonlocal made
        made += 1
        return JwtKey(str(made), now, KEY)

    now, keys, seen, minted = 0.0, succession((), 0.0, make), [], []
    for pause in pauses:
        minted.append((now, signing(keys, now).id))
        seen.append((now, {key.id for key in keys}))
        for step in (min(pause, HINT), pause):  # the control plane looks each minute; here seldom, which is worse
            keys = succession(keys, now + step, make)
            seen.append((now + step, {key.id for key in keys}))
        now += pause
    for at, id in minted:
        for when, ids in seen:
            if max(0.0, at - HINT) <= when <= at + LONGEST and when >= seen[0][0]:
                assert id in ids, (at, id, when, ids)
    assert len(keys) <= 3


def test_control_planes_share_the_keys_and_replace_them_by_age(tmp_path: Path) -> None:
    now = [1_000_000.0]

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.db")
        one, other = await asyncio.gather(*(JwtKeys.open(store, Sealing(), lambda: now[0]) for _ in range(2)))
        assert one.jwks() == other.jwks() and len(one.keys) == 1
        first = one.keys[0]
        now[0] += 7 * 86400
        await asyncio.gather(one.renew(), other.renew())
        await one.reload()
        assert one.jwks() == other.jwks() and len(one.keys) == 2
        header = jwt.get_unverified_header(one.sign({"sub": "a"}))
        assert header == {"alg": "ES256", "kid": first.id, "typ": "JWT"}, "the new one is not known to all yet"
        now[0] += 3600
        assert jwt.get_unverified_header(one.sign({"sub": "a"}))["kid"] == one.keys[1].id
        now[0] += 3600
        await one.renew()
        assert len(one.keys) == 1 and one.keys[0] != first
        verified = jwt.decode(one.sign({"sub": "a"}), jwt.PyJWK(json.loads(json.dumps(one.jwks()["keys"][0]))))
        assert verified == {"sub": "a"} and "PRIVATE" not in repr(one.keys)
        await store.close()

    asyncio.run(main())
