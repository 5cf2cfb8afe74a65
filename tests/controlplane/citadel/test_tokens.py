"""Tokens: of one role, for a time, and those to join once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.tokens import Tokens
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.credentials import Identity, Role, Unauthenticated


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def with_tokens(directory: Path, test: Callable[[Tokens, Tokens, Clock], Awaitable[None]]) -> None:
    """Run a test with the tokens of two control planes on one store."""

    async def main() -> None:
        store = await SqliteStore.open(directory / "store.db")
        authority = await CertificateAuthority.open(store)
        clock = Clock()
        await test(Tokens(store, authority, clock), Tokens(store, authority, clock), clock)
        await store.close()

    asyncio.run(main())


def test_a_join_token_serves_once_whoever_is_asked(tmp_path: Path) -> None:
    async def test(one: Tokens, other: Tokens, clock: Clock) -> None:
        token, text = await one.create("shop", "reviews", lifetime=60, who="admin")
        assert token.namespace == "shop" and token.expires == clock.now + 60 and not token.used
        results = await asyncio.gather(*(tokens.identify(text) for tokens in (one, other) * 4), return_exceptions=True)
        let_in = [result for result in results if isinstance(result, Identity)]
        assert let_in == [Identity(Role.WORKLOAD, "join:shop/reviews", "shop", "reviews")]
        assert all(isinstance(result, Unauthenticated) for result in results if not isinstance(result, Identity))
        assert [(known.id, known.used, known.created_by) for known in await other.list()] == [(token.id, True, "admin")]

    with_tokens(tmp_path, test)


def test_a_join_token_names_the_key_of_the_authority(tmp_path: Path) -> None:
    async def test(one: Tokens, other: Tokens, clock: Clock) -> None:
        _, text = await one.create("shop", "reviews", lifetime=60, who="admin")
        assert text.rpartition("-")[2] == one._authority.hash

    with_tokens(tmp_path, test)


def test_tokens_expire_and_are_forgotten(tmp_path: Path) -> None:
    async def test(one: Tokens, other: Tokens, clock: Clock) -> None:
        _, joining = await one.create("shop", "reviews", lifetime=60, who="admin")
        _, viewing = await one.issue(Role.VIEWER, "looker", lifetime=60)
        _, lasting = await one.issue(Role.VIEWER, "resident")
        assert (await one.identify(viewing)).name == "looker"
        clock.now += 60
        for text in (joining, viewing):
            with pytest.raises(Unauthenticated, match="expired"):
                await other.identify(text)
        assert (await other.identify(lasting)).role is Role.VIEWER
        clock.now += 100_000
        await one.forget()
        assert [token.name for token in await one.list()] == ["resident"]

    with_tokens(tmp_path, test)


def test_a_join_token_is_revoked(tmp_path: Path) -> None:
    async def test(one: Tokens, other: Tokens, clock: Clock) -> None:
        token, text = await one.create("shop", "reviews", lifetime=60, who="admin")
        assert await other.revoke(token.id, who="admin") and not await other.revoke(token.id, who="admin")
        with pytest.raises(Unauthenticated):
            await one.identify(text)

    with_tokens(tmp_path, test)
