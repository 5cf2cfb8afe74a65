"""HTTP filters whose configuration comes later, and changes under open connections."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sidecar.telemetry.stats import Kind
from tests.sidecar.xds.driving import ADS, HandDriven, drive
from tests.sidecar.xds.test_listeners import ROUTER, Client, Sidecar, chain, free_port, get, inline, listener

HTTP = "type.googleapis.com/envoy.extensions.filters.http."
FAULT = HTTP + "fault.v3.HTTPFault"


def abort(status: int) -> dict[str, Any]:
    """A filter that answers everything."""
    return {"@type": FAULT, "abort": {"http_status": status, "percentage": {"numerator": 100}}}


def fault(status: int) -> dict[str, Any]:
    """What the server sends; a status of 0 lets everything pass."""
    return {"name": "f", "typed_config": abort(status) if status else {"@type": FAULT}}


def discovering(**more: Any) -> dict[str, Any]:
    """A filter chain with that filter."""
    discovered = {"name": "f", "config_discovery": {"config_source": ADS, "type_urls": [FAULT], **more}}
    return chain({**inline("one"), "http_filters": [discovered, ROUTER]})


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> HandDriven:
    return drive(monkeypatch)


async def test_a_listener_waits_for_the_configuration_of_its_filter_which_changes_under_connections(
    driven: HandDriven,
) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, discovering())) as sidecar:
        assert driven.wanted("TypedExtensionConfig") == ["f"]
        assert not sidecar.starting.done()
        await driven.send("TypedExtensionConfig", {"f": fault(0)})
        await sidecar.starting
        client = await Client.to(port)
        for _ in range(5):  # the express lane takes over
            assert await client.get() == (200, "one")
        await driven.send("TypedExtensionConfig", {"f": fault(418)}, "2")
        assert (await client.get())[0] == 418
        await driven.send("TypedExtensionConfig", {"f": fault(0)}, "3")
        assert await client.get() == (200, "one")
        client.close()


async def test_a_configuration_of_another_type_is_rejected(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, discovering())) as sidecar:
        await driven.send("TypedExtensionConfig", {"f": fault(418)})
        await sidecar.starting
        buffer = {"@type": HTTP + "buffer.v3.Buffer", "max_request_bytes": 5}
        (rejection,) = await driven.send("TypedExtensionConfig", {"f": {"name": "f", "typed_config": buffer}}, "2")
        assert rejection.name == "f" and "type_urls allow" in rejection.reason
        assert (await get(port))[0] == 418


async def test_without_a_configuration_nobody_gets_past_the_filter(driven: HandDriven) -> None:
    port = free_port()
    async with Sidecar(driven, listener("a", port, discovering())) as sidecar:
        (interest,) = [one for one in driven.interests if one.names]
        interest.watcher.on_unavailable()
        await sidecar.starting
        assert (await get(port))[0] == 500


async def test_the_default_holds_until_there_is_another_and_when_that_is_gone(driven: HandDriven) -> None:
    port = free_port()
    default = discovering(default_config=abort(410), apply_default_config_without_warming=True)
    async with Sidecar(driven, listener("a", port, default)) as sidecar:
        await sidecar.starting
        assert (await get(port))[0] == 410
        await driven.send("TypedExtensionConfig", {"f": fault(411)})
        assert (await get(port))[0] == 411
        await driven.send("TypedExtensionConfig", {}, removed=["f"])
        assert (await get(port))[0] == 410
        await driven.send("Listener", [], "2")
        async with asyncio.timeout(5):
            while driven.wanted("TypedExtensionConfig"):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("chains", "words"),
    [
        ([discovering(apply_default_config_without_warming=True)], "needs default_config"),
        (
            [chain({**inline("x"), "http_filters": [{"name": "f", "config_discovery": {"config_source": ADS}}]})],
            "type_urls",
        ),
    ],
)
async def test_what_is_wrong_with_the_discovery_is_refused(driven: HandDriven, chains: Any, words: str) -> None:
    async with Sidecar(driven, listener("a", free_port(), *chains)) as sidecar:
        (rejection,) = sidecar.rejections
        assert rejection.name == "a" and words in rejection.reason


JWT = HTTP + "jwt_authn.v3.JwtAuthentication"


def fetching(issuer: str) -> dict[str, Any]:
    """Keys from a cluster without hosts, in the background: each fetch fails, and is soon tried again."""
    uri = {"uri": "http://keys/jwks", "cluster": "xds", "timeout": "1s"}
    fetch = {"http_uri": uri, "async_fetch": {"fast_listener": True, "failed_refetch_duration": "0.01s"}}
    return {
        "@type": JWT,
        "providers": {issuer: {"issuer": issuer, "remote_jwks": fetch}},
        "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": issuer}}],
        "stat_prefix": issuer,
    }


def fetches(sidecar: Sidecar, issuer: str) -> int:
    """How often they have been looked for."""
    found = {name: value for group in sidecar.stack.store for name, value in group.samples(Kind.COUNTER)}
    return int(found.get(f"http.test.jwt_authn.{issuer}.jwks_fetch_failed", 0))


async def more_fetches(sidecar: Sidecar, issuer: str) -> None:
    """Wait for three."""
    least = fetches(sidecar, issuer) + 3
    async with asyncio.timeout(5):
        while fetches(sidecar, issuer) < least:
            await asyncio.sleep(0.005)


async def test_keys_of_a_discovered_filter_are_fetched_before_anybody_needs_them_and_no_longer_than_it_is_there(
    driven: HandDriven,
) -> None:
    discovered = discovering(
        type_urls=[JWT], default_config=fetching("default"), apply_default_config_without_warming=True
    )
    port = free_port()
    async with Sidecar(driven, listener("a", port, discovered)) as sidecar:
        await sidecar.starting
        await more_fetches(sidecar, "default")
        for version, issuer in (("1", "first"), ("2", "second")):
            made = {"f": {"name": "f", "typed_config": fetching(issuer)}}
            assert await driven.send("TypedExtensionConfig", made, version) == []
            await more_fetches(sidecar, issuer)
        first = fetches(sidecar, "first")
        await more_fetches(sidecar, "second")
        assert fetches(sidecar, "first") == first, "it has been replaced"
        await driven.send("TypedExtensionConfig", {}, removed=["f"])
        second = fetches(sidecar, "second")
        await more_fetches(sidecar, "default")
        assert fetches(sidecar, "second") == second, "the default has come back"
        (manager,) = (one for one in sidecar.stack.managers if one.default_chain.filters)
        keys = manager.default_chain.filters[0].shared.providers["default"].keys  # type: ignore[attr-defined]
        await driven.send("Listener", [], "2")
        async with asyncio.timeout(5):
            while manager in sidecar.stack.managers:
                await asyncio.sleep(0.01)
        assert keys.closed
