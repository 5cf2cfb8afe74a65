"""Who speaks to the control plane, and how it is known: `citadel/` implements these protocols, `api/` and `xds/` ask them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Role(StrEnum):
    """What somebody may do: everything, read all but secrets, or be a workload that asks for its own configuration."""

    ADMIN = "admin"
    VIEWER = "viewer"
    WORKLOAD = "workload"


class Unauthenticated(Exception):
    """No credential was given, or it is unknown, expired or used up. The text is fit for the caller's eyes."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who proved who they are. ``name`` is what the history calls them; workloads have a namespace and a service
    account, and what their node says beyond those is not believed.
    """

    role: Role
    name: str
    namespace: str = ""
    service_account: str = ""


class Authenticator(Protocol):
    """Judges credentials."""

    async def authenticate(self, *, token: str | None = None, certificate: bytes | None = None) -> Identity:
        """Whose token, or whose client certificate (DER, its chain already verified by TLS), this is.

        A join token serves once: asking for it here uses it up. Raises Unauthenticated.
        """
        ...


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token as it is listed: its secret is known to its bearer alone. Times are in seconds since the epoch.

    Those of workloads are join tokens: for a namespace and a service account, good once. The others have a ``name``, and are
    good until ``expires`` (None: until they are revoked).
    """

    id: str
    role: Role
    name: str
    namespace: str
    service_account: str
    created: float
    expires: float | None
    created_by: str
    used: bool = False


class TokenIssuer(Protocol):
    """Makes, lists and revokes tokens, and lets workloads trade theirs for a certificate."""

    async def create(
        self, namespace: str, service_account: str, *, lifetime: float, who: str
    ) -> tuple[IssuedToken, str]:
        """A new join token, valid for ``lifetime`` seconds, and its text, which is told only now."""
        ...

    async def issue(self, role: Role, name: str, *, lifetime: float | None, who: str) -> tuple[IssuedToken, str]:
        """A new token of an admin or a viewer, likewise; without a ``lifetime`` it is valid until it is revoked."""
        ...

    async def list(self) -> Sequence[IssuedToken]:
        """All that are not forgotten yet, used and expired ones included, the oldest first."""
        ...

    async def revoke(self, id: str, *, who: str) -> bool:
        """Whether there was one."""
        ...

    async def join(self, token: str, request: bytes) -> bytes:
        """Use up a join token for a certificate: ``request`` is a certificate signing request, the answer the chain with the
        root last, both PEM. Raises Unauthenticated, and ValueError for a request that is none.
        """
        ...

    async def renew(self, identity: Identity, request: bytes) -> bytes:
        """Another certificate for a workload that has one; see ``join``. Raises ValueError."""
        ...

    def root(self) -> bytes:
        """The root of the mesh's authority, PEM. It is no secret: whoever joins compares its hash with that in the token."""
        ...
