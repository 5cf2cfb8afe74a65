"""The trust bundle as workloads get it: as it is, as soon as it changes, and who has said that they have it."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from controlplane.citadel.authority import KIND, CertificateAuthority
from controlplane.citadel.jwt_keys import JwtKeys
from controlplane.citadel.signers import pem
from controlplane.model.certificates import TrustBundle
from controlplane.model.store import Compacted, Store

log = logging.getLogger("controlplane.citadel")

REFRESH_HINT: Final = 300  # seconds
_MOST_CONFIRMATIONS: Final = 50_000
_MOST_OF_ONE: Final = 12_500  # of one identity


@dataclass(frozen=True, slots=True)
class Confirmation:
    """Somebody serves the bundle of ``version`` to the workloads of ``identity``, and has said so last at ``at`` (seconds since
    the epoch).
    """

    identity: str
    source: str
    version: int
    at: float


class TrustBundles:
    """What the authority and the keys of JWT-SVIDs make together."""

    def __init__(
        self, store: Store, authority: CertificateAuthority, jwt_keys: JwtKeys, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._authority = authority
        self._jwt_keys = jwt_keys
        self._clock = clock
        self._confirmations: dict[tuple[str, str], Confirmation] = {}
        self._sources: dict[str, dict[str, None]] = {}  # by identity, who said it longest ago first
        self._changed = asyncio.Event()
        self._closed = False
        self._settling: set[asyncio.Task[None]] = set()
        self.current = self._made()
        authority.listeners.append(self._update)
        jwt_keys.listeners.append(self._jwt_keys_changed)

    async def follow(self) -> None:
        """Take over what other control planes on the store change, until cancelled."""
        while True:
            since = await self._store.revision()
            await self._reload()
            try:
                async for _ in self._store.watch(since, {KIND}):
                    await self._reload()
            except Compacted:
                continue

    async def changed(self, have: int | None, wait: float) -> TrustBundle:
        """The bundle as soon as its version is not ``have``, at the latest after ``wait`` seconds."""
        try:
            async with asyncio.timeout(wait):
                while self.current.version == have and not self._closed:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.current

    def confirm(self, identity: str, source: str, version: int) -> None:
        """Somebody at the address ``source`` serves this version. Who says so from many addresses (of IPv6 one machine has as
        many as it likes) pushes out what they have said themselves, and nobody else.
        """
        of_one = self._sources.get(identity, {})
        if source in of_one:
            self._forget(identity, source)
        elif len(of_one) >= _MOST_OF_ONE:
            self._forget(identity, next(iter(of_one)))
        elif len(self._confirmations) >= _MOST_CONFIRMATIONS:
            self._forget(*next(iter(self._confirmations)))
        self._confirmations[identity, source] = Confirmation(identity, source, version, self._clock())
        self._sources.setdefault(identity, {})[source] = None

    def _forget(self, identity: str, source: str) -> None:
        del self._confirmations[identity, source]
        of_one = self._sources[identity]
        del of_one[source]
        if not of_one:
            del self._sources[identity]

    def confirmations(self) -> Sequence[Confirmation]:
        """Of all who have said something, the last; who said it longest ago comes first."""
        return list(self._confirmations.values())

    def spiffe(self) -> Mapping[str, Any]:
        """As a JWK set (SPIFFE Trust Domain and Bundle, section 4)."""
        keys: list[dict[str, Any]] = [
            {**_jwk(root), "use": "x509-svid", "x5c": [base64.b64encode(_der(root)).decode()]}
            for root in self._authority.state.roots
        ]
        keys += self._jwt_keys.jwks("jwt-svid")["keys"]
        return {"keys": keys, "spiffe_sequence": self.current.version, "spiffe_refresh_hint": REFRESH_HINT}

    @property
    def is_closed(self) -> bool:
        """Whether nobody waits any more."""
        return self._closed

    def close(self) -> None:
        """Whoever waits is answered."""
        for task in self._settling:
            task.cancel()
        self._closed = True
        self._changed.set()

    async def _reload(self) -> None:
        # The authority last: whoever has a version has the roots of all versions before it.
        await self._jwt_keys.reload()
        await self._authority.reload()
        self._update()

    def _jwt_keys_changed(self) -> None:
        """Their version may be later than a change of the roots that is not known here yet: that is looked for first."""
        self._soon(self._reload())

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._settling.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("the trust bundle is looked at again with the next change: %s", task.exception())

    def _update(self) -> None:
        made = self._made()
        if made == self.current:
            return
        if made.version <= self.current.version:
            # Keys of JWT-SVIDs that are older than the roots were seen after these: a version says one thing alone.
            self._soon(self._authority.change(lambda state: replace(state, version=0), who="citadel"))
        self.current = made
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()

    def _made(self) -> TrustBundle:
        state = self._authority.state
        return TrustBundle(
            trust_domain=state.trust_domain,
            version=max(state.version, self._jwt_keys.version),
            roots=tuple(pem(root).decode() for root in state.roots),
            crl=state.crl,
            jwks=self._jwt_keys.jwks(),
            refresh_hint=REFRESH_HINT,
            renew_within=0.0 if state.rotation is None else state.rotation.renew_within,
        )


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def _jwk(certificate: x509.Certificate) -> dict[str, str]:
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        numbers = key.public_numbers()
        size = (key.key_size + 7) // 8
        curve = f"P-{key.key_size}"
        return {"kty": "EC", "crv": curve, "x": _number(numbers.x, size), "y": _number(numbers.y, size)}
    assert isinstance(key, rsa.RSAPublicKey)
    rsa_numbers = key.public_numbers()
    n, e = rsa_numbers.n, rsa_numbers.e
    return {
        "kty": "RSA",
        "n": _number(n, (n.bit_length() + 7) // 8),
        "e": _number(e, (e.bit_length() + 7) // 8),
    }


def _number(value: int, size: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(size)).rstrip(b"=").decode()
