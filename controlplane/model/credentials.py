"""Who speaks to the control plane, and how it is known: `citadel/` implements these protocols, `api/` and `xds/` ask them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Role(StrEnum):
    """What somebody may do: everything, read all but secrets, or be a workload that asks for its own configuration."""

    ADMIN = "admin"
    VIEWER = "viewer"
    WORKLOAD = "workload"


class Means(StrEnum):
    """By what somebody has proved who they are."""

    TOKEN = "token"
    JOIN_TOKEN = "join token"
    CERTIFICATE = "certificate"
    KUBERNETES = "Kubernetes service account token"


class Unauthenticated(Exception):
    """No credential was given, or it is unknown, expired or used up. The text is fit for the caller's eyes. ``proof`` is of a
    credential that is good, but not for this ("join token 3f2a").
    """

    def __init__(self, message: str, *, proof: str = "") -> None:
        super().__init__(message)
        self.proof = proof


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who proved who they are. ``name`` is what the history calls them; workloads have a namespace and a service
    account, and what their node says beyond those is not believed. ``credential`` tells which token (its id) or certificate
    (its serial, hexadecimal) it was.
    """

    role: Role
    name: str
    namespace: str = ""
    service_account: str = ""
    means: Means = field(default=Means.TOKEN, compare=False)
    credential: str = field(default="", compare=False)

    @property
    def proof(self) -> str:
        """What they have proved it by, for a log: "join token 3f2a"."""
        return f"{self.means} {self.credential}".rstrip()


class Authenticator(Protocol):
    """Judges credentials."""

    async def authenticate(self, *, token: str | None = None, certificate: bytes | None = None) -> Identity:
        """Whose token, or whose client certificate (DER, its chain already verified by TLS), this is.

        A join token is no credential here, and is not used up. Raises Unauthenticated.
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
    """Makes, lists and revokes tokens."""

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
