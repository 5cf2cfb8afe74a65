"""What operators do with the certificate authority: `citadel/` does it, `api/` passes it on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class NotNow(Exception):
    """This cannot be done in the state that the authority is in: says which, and what can."""


class AuthorityOperations(Protocol):
    """Rotation of the root, and the deny list. ``who`` asks, for the audit log; what is answered is ready for JSON, with times in
    seconds since the epoch. All but what reads raise NotNow, InvalidRequest, CannotIssue and Unavailable.
    """

    async def status(self) -> Mapping[str, Any]:
        """How far a rotation is and whom it waits for, and what somebody should look at soon (`warnings`)."""
        ...

    async def rotate(self, *, key_type: str, timeout: float | None, who: str) -> None:
        """Begin: a new root of ``key_type`` ("ecdsa", "rsa") is told to everybody. After ``timeout`` seconds (None: never) it
        signs though somebody may not have confirmed it.
        """
        ...

    async def advance(self, *, gate: int, who: str) -> None:
        """Pass the ``gate`` at which the rotation is, whoever has not: 1, so that the new root signs; 2 or 3, so that the old
        one leaves.
        """
        ...

    async def abort(self, *, who: str) -> None:
        """Take a new root back that has not signed yet."""
        ...

    def denied(self) -> Mapping[str, Any]:
        """What is revoked: `certificates` and `identities`; `listProblem` says why proxies are not told, empty if they are."""
        ...

    async def revoke(self, *, serial: str, identity: str, reason: str, who: str) -> Mapping[str, Any]:
        """Revoke one certificate, or an identity (the other is empty) with all its certificates that are known; what was
        revoked.
        """
        ...

    async def restore(self, *, serial: str, identity: str, who: str) -> None:
        """Believe a certificate again that was held, or let an identity have certificates again."""
        ...
