"""Bearer tokens: of admins and viewers, and the join tokens by which a workload comes in. They are kept hashed."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from controlplane.citadel.authority import CertificateAuthority
from controlplane.model.credentials import Identity, IssuedToken, Means, Role, Unauthenticated
from controlplane.model.resource import ResourceKey
from controlplane.model.store import Conflict, Store

TOKEN_KIND = "_Token"
_PREFIX = "mizzen"
_JOIN = "join"
_UNKNOWN = "the token is unknown, revoked or expired"
_USED = "the join token has been used before: each serves once"
_LONGEST = 512


class Tokens:
    """Tokens in the store, where every control plane on it finds them. None is cached: what is revoked ends at once.

    The text of a token is `mizzen-ROLE-ID-SECRET`; of a join token `mizzen-join-ID-SECRET-HASH`, with the hash of the CA's
    public key (see CertificateAuthority). The store has the SHA-256 of the secret, which 256 random bits need no salt for.
    """

    def __init__(self, store: Store, authority: CertificateAuthority, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._authority = authority
        self._clock = clock

    async def issue(
        self, role: Role, name: str, *, lifetime: float | None = None, who: str = "citadel"
    ) -> tuple[IssuedToken, str]:
        """See TokenIssuer."""
        return await self._keep(role.value, {"name": name}, lifetime, who)

    async def create(
        self, namespace: str, service_account: str, *, lifetime: float, who: str
    ) -> tuple[IssuedToken, str]:
        """See TokenIssuer."""
        await self.forget()
        account = {"namespace": namespace, "serviceAccount": service_account}
        token, text = await self._keep(_JOIN, account, lifetime, who)
        return token, f"{text}-{self._authority.hash}"

    async def list(self) -> Sequence[IssuedToken]:
        """See TokenIssuer."""
        stored = (await self._store.list(TOKEN_KIND)).items
        tokens = [_issued(one.key.name, json.loads(one.document)) for one in stored]
        return sorted(tokens, key=lambda token: token.created)

    async def revoke(self, id: str, *, who: str) -> bool:
        """See TokenIssuer."""
        return await self._store.delete(ResourceKey(TOKEN_KIND, "", id), expected=None, who=who) is not None

    async def bearer(self, token: str) -> Identity:
        """Whose token it is; a join token is not used up by that. Raises Unauthenticated, also for one that is used up."""
        id, document, _ = await self._find(token)
        return _identity(id, document)

    async def identify(self, token: str) -> Identity:
        """Whose token it is. A join token is used up by it, once, whichever control plane is asked. Raises
        Unauthenticated.
        """
        id, document, revision = await self._find(token)
        identity = _identity(id, document)
        if document["role"] != _JOIN:
            return identity
        used = json.dumps({**document, "used": self._clock()}).encode()
        try:
            await self._store.put(ResourceKey(TOKEN_KIND, "", id), used, expected=revision, who=identity.name)
        except Conflict:
            raise Unauthenticated(_USED) from None
        return identity

    async def forget(self, age: float = 86400.0) -> None:
        """Remove what expired more than ``age`` seconds ago."""
        for stored in (await self._store.list(TOKEN_KIND)).items:
            expires = json.loads(stored.document).get("expires")
            if expires is not None and expires + age < self._clock():
                await self._store.delete(stored.key, expected=None, who="citadel")

    async def _keep(
        self, role: str, about: Mapping[str, Any], lifetime: float | None, who: str
    ) -> tuple[IssuedToken, str]:
        id, secret, now = secrets.token_hex(6), secrets.token_hex(32), self._clock()
        document = {
            "role": role,
            **about,
            "created": now,
            "createdBy": who,
            "expires": None if lifetime is None else now + lifetime,
            "secret": _hash(secret),
        }
        await self._store.put(ResourceKey(TOKEN_KIND, "", id), json.dumps(document).encode(), expected=0, who=who)
        return _issued(id, document), f"{_PREFIX}-{role}-{id}-{secret}"

    async def _find(self, token: str) -> tuple[str, dict[str, Any], int]:
        parts = token.split("-")
        if len(token) > _LONGEST or not token.isascii() or len(parts) not in (4, 5) or parts[0] != _PREFIX:
            raise Unauthenticated("not a token of this control plane")
        role, id, secret = parts[1:4]
        stored = await self._store.get(ResourceKey(TOKEN_KIND, "", id)) if id.isalnum() else None
        document: dict[str, Any] = {"secret": "", "role": ""} if stored is None else json.loads(stored.document)
        right = hmac.compare_digest(_hash(secret), document["secret"])
        expires = document.get("expires")
        if (
            stored is None
            or not right
            or role != document["role"]
            or (expires is not None and expires <= self._clock())
        ):
            raise Unauthenticated(_UNKNOWN)
        return id, document, stored.revision


def is_join_token(token: str) -> bool:
    """Whether it says that it is one."""
    return token.startswith(f"{_PREFIX}-{_JOIN}-")


def _identity(id: str, document: Mapping[str, Any]) -> Identity:
    if document["role"] != _JOIN:
        return Identity(Role(document["role"]), document["name"], means=Means.TOKEN, credential=id)
    if document.get("used"):
        raise Unauthenticated(_USED)
    namespace, account = document["namespace"], document["serviceAccount"]
    return Identity(Role.WORKLOAD, f"join:{namespace}/{account}", namespace, account, Means.JOIN_TOKEN, id)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _issued(id: str, document: Mapping[str, Any]) -> IssuedToken:
    return IssuedToken(
        id=id,
        role=Role.WORKLOAD if document["role"] == _JOIN else Role(document["role"]),
        name=document.get("name", ""),
        namespace=document.get("namespace", ""),
        service_account=document.get("serviceAccount", ""),
        created=document["created"],
        expires=document["expires"],
        created_by=document["createdBy"],
        used=bool(document.get("used")),
    )
