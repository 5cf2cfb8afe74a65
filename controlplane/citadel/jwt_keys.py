"""Keys of JWT-SVIDs: made, published before they sign, kept while what they signed is good, and replaced by their age.

Source: SPIFFE JWT-SVID; RFC 7515 to 7518 (ES256).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from controlplane.citadel.authority import KIND
from controlplane.citadel.sealing import Sealing
from controlplane.citadel.signers import key_pem, load_key
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Conflict, Store, Stored

KEYS: Final = ResourceKey(KIND, "", "jwt-keys")
LONGEST: Final = 3600.0  # seconds that a JWT-SVID may live
_PURPOSE: Final = "key of JWT-SVIDs"
_SIGNS_FOR: Final = 7 * 86400.0  # seconds after which another key is made
_AHEAD: Final = 3600.0  # seconds for which a key is published before it signs
_LOOK_EVERY: Final = 60.0


@dataclass(frozen=True, slots=True)
class JwtKey:
    """A key, and when it was made (seconds since the epoch)."""

    id: str
    created: float
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    def public(self, use: str) -> dict[str, str]:
        """As a JWK (RFC 7517, RFC 7518 section 6.2)."""
        numbers = self.key.public_key().public_numbers()
        return {
            "kty": "EC",
            "crv": "P-256",
            "x": _encoded(numbers.x.to_bytes(32)),
            "y": _encoded(numbers.y.to_bytes(32)),
            "kid": self.id,
            "use": use,
            "alg": "ES256",
        }


def succession(keys: tuple[JwtKey, ...], now: float, make: Callable[[float], JwtKey]) -> tuple[JwtKey, ...]:
    """The keys that there should be now, the oldest first: a new one when the newest has come of age, and none of those that
    signed nothing which is still good.
    """
    if not keys or now - keys[-1].created >= _SIGNS_FOR:
        keys = (*keys, make(now))
    return tuple(
        key
        for number, key in enumerate(keys)
        # A key has signed until the next one took over.
        if number + 1 == len(keys) or now < keys[number + 1].created + _AHEAD + LONGEST
    )


def signing(keys: tuple[JwtKey, ...], now: float) -> JwtKey:
    """The key that signs: the newest that everybody has heard of, else the oldest."""
    known = [key for key in keys if now - key.created >= _AHEAD]
    return known[-1] if known else keys[0]


class JwtKeys:
    """The keys in the store, shared by all control planes on it. ``listeners`` are called when they change."""

    def __init__(self, store: Store, sealing: Sealing, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._sealing = sealing
        self._clock = clock
        self.keys: tuple[JwtKey, ...] = ()
        self.version = 0
        self.listeners: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, store: Store, sealing: Sealing, clock: Callable[[], float] = time.time) -> JwtKeys:
        """Those that there are, or a first one. Raises CannotUnseal."""
        keys = cls(store, sealing, clock)
        await keys.renew()
        return keys

    async def renew(self) -> None:
        """Make and forget keys as it is time for that."""
        while True:
            stored = await self._store.get(KEYS)
            if stored is not None and stored.revision != self.version:
                await self._take(stored)
            wanted = succession(self.keys, self._clock(), _new_key)
            kept = stored is not None and not (self._sealing.active and _is_open(stored))
            if wanted == self.keys and kept:
                return
            document = await asyncio.to_thread(self._document, wanted)
            expected = 0 if stored is None else stored.revision
            try:
                await self._take(await self._store.put(KEYS, document, expected=expected, who="citadel"))
                return
            except Conflict:
                continue

    async def run(self) -> None:
        """Renew on and on."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            await self.renew()

    async def reload(self) -> None:
        """Take over what another control plane has changed. Raises CannotUnseal."""
        stored = await self._store.get(KEYS)
        if stored is not None and stored.revision != self.version:
            await self._take(stored)

    def jwks(self, use: str = "sig") -> Mapping[str, Any]:
        """The public keys, a JWK set."""
        return {"keys": [key.public(use) for key in self.keys]}

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A JWT in compact serialization (RFC 7515 section 7.1)."""
        key = signing(self.keys, self._clock())
        header = {"alg": "ES256", "kid": key.id, "typ": "JWT"}
        signed = ".".join(_encoded(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
        r, s = decode_dss_signature(key.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_encoded(r.to_bytes(32) + s.to_bytes(32))}"

    async def _take(self, stored: Stored) -> None:
        found = []
        for entry in json.loads(stored.document)["keys"]:
            text = await asyncio.to_thread(self._sealing.open, entry["key"], _PURPOSE)
            key = load_key(text.encode())
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            found.append(JwtKey(entry["id"], entry["created"], key))
        self.keys, self.version = tuple(found), stored.revision
        for listener in self.listeners:
            listener()

    def _document(self, keys: tuple[JwtKey, ...]) -> bytes:
        entries = [
            {"id": key.id, "created": key.created, "key": self._sealing.seal(key_pem(key.key).decode(), _PURPOSE)}
            for key in keys
        ]
        return json.dumps({"keys": entries}).encode()


def _is_open(stored: Stored) -> bool:
    return any(isinstance(entry["key"], str) for entry in json.loads(stored.document)["keys"])


def _new_key(now: float) -> JwtKey:
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    id = hashlib.sha256(numbers.x.to_bytes(32) + numbers.y.to_bytes(32)).hexdigest()[:32]
    return JwtKey(id, now, key)


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
