"""Issuers are asked where their keys are: a real server over TLS, right and wrong answers, what stays and what comes again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from controlplane.discovery.openid import OpenIdDiscovery
from controlplane.galley.analysis.policies import analyze_issuers
from controlplane.model.parsing import parse
from controlplane.model.resource import Resource, ResourceKey
from tests.controlplane.discovery.issuers import Answer, Issuers, issuers, say
from tests.controlplane.whole import whole
from tests.running import until

KEY = ResourceKey("RequestAuthentication", "shop", "tokens")


def policy(*rules: dict[str, Any]) -> Resource:
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "shop"},
        "spec": {"jwtRules": list(rules)},
    }
    return parse(document)


class Following:
    """A discovery that runs; ``told`` is what it has told of."""

    def __init__(self, server: Issuers, kept: Path, context: ssl.SSLContext | None = None, **settings: Any) -> None:
        self.told: list[Resource] = []
        self.noticed = 0
        self.discovery = OpenIdDiscovery(
            self._tell, self._notice, kept, context=context or server.context, first_pause=0.05, **settings
        )

    def _tell(self, changed: Any) -> None:
        self.told += [one for one in changed.values() if one is not None]

    def _notice(self) -> None:
        self.noticed += 1

    async def until(self, right: Callable[[], bool], seconds: float = 15) -> None:
        async with asyncio.timeout(seconds):
            while not right():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def following(server: Issuers, kept: Path, **settings: Any) -> AsyncIterator[Following]:
    made = Following(server, kept, **settings)
    task = asyncio.create_task(made.discovery.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _addresses(resource: Resource | None) -> list[str | None]:
    assert resource is not None
    return [rule.jwks_uri for rule in resource.spec.jwt_rules]


def test_addresses_of_keys_are_asked_for_and_kept(tmp_path: Path) -> None:
    async def run() -> None:
        kept = tmp_path / "openid.json"
        with issuers(tmp_path) as server:
            one, two = f"{server.address}/one", f"{server.address}/two/"
            server.answer = lambda handler, path: say(
                handler, {**server.document(path), "issuer": two if "two" in path else one}
            )
            rules = policy({"issuer": one}, {"issuer": two}, {"issuer": "by-keys", "jwks": '{"keys": []}'})
            async with following(server, kept) as made:
                before = made.discovery.resolved({KEY: rules})
                assert _addresses(before[KEY]) == [None, None, None]
                assert made.discovery.unknown().keys() == {one, two}
                await made.discovery.asked(10)
                await made.until(lambda: not made.discovery.unknown())
                assert _addresses(made.told[-1]) == [f"{one}/keys", f"{server.address}/two/keys", None]
                assert made.told[-1].metadata is rules.metadata
                assert _addresses(made.discovery.resolved({KEY: rules})[KEY])[0] == f"{one}/keys"
                assert sorted(server.asked) == [f"/{name}/.well-known/openid-configuration" for name in ("one", "two")]
                assert made.discovery.resolved({KEY: None}) == {KEY: None}
                assert not made.discovery.unknown()
            again = OpenIdDiscovery(lambda _: None, lambda: None, kept)  # with nobody to ask
            assert _addresses(again.resolved({KEY: rules})[KEY])[1] == f"{server.address}/two/keys"
            await asyncio.wait_for(again.asked(10), 1)

    asyncio.run(run())


def test_what_is_known_stays_while_the_issuer_is_ill_and_follows_it(tmp_path: Path) -> None:
    async def run() -> None:
        with issuers(tmp_path) as server:
            async with following(server, tmp_path / "kept", again=0.05) as made:
                issuer = server.address
                rules = made.discovery.resolved({KEY: policy({"issuer": issuer})})[KEY]
                await made.until(lambda: bool(made.told))
                server.answer = lambda handler, path: say(handler, b"", 500)
                asked = len(server.asked)
                await made.until(lambda: len(server.asked) > asked + 2)
                assert not made.discovery.unknown()
                assert _addresses(made.discovery.resolved({KEY: rules})[KEY]) == [f"{issuer}/keys"]
                server.answer = lambda handler, path: say(
                    handler, server.document(path, jwks_uri="https://moved.example/k")
                )
                await made.until(lambda: _addresses(made.told[-1]) == ["https://moved.example/k"])

    asyncio.run(run())


def _redirect(handler: Any, path: str) -> None:
    say(handler, b"", 302, location="/elsewhere")


def _slowly(handler: Any, path: str) -> None:
    time.sleep(6)


def _endless(handler: Any, path: str) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):
        while True:
            handler.wfile.write(b" " * 65536)


BAD: dict[str, tuple[Answer, str]] = {
    "status": (lambda handler, path: say(handler, b"", 404), "answers with status 404"),
    "redirect": (_redirect, "answers with status 302"),
    "not-json": (lambda handler, path: say(handler, b"<html>"), "is not JSON"),
    "deep": (lambda handler, path: say(handler, b"[" * 100_000), "is not JSON"),
    "list": (lambda handler, path: say(handler, []), "is not an object"),
    "other-issuer": (lambda handler, path: say(handler, {"issuer": "https://x", "jwks_uri": "https://x"}), "is of the issuer 'https://x'"),
    "no-keys": (
        lambda handler, path: say(handler, {"issuer": f"https://{handler.headers['host']}"}),
        "no address that begins with https",
    ),
    "keys-in-the-clear": (
        lambda handler, path: say(handler, {"issuer": f"https://{handler.headers['host']}", "jwks_uri": "http://x/k"}),
        "no address that begins with https",
    ),
    "endless": (_endless, "is larger than 262144 bytes"),
    "slow": (_slowly, "has not answered within 5 seconds"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_answers_that_are_wrong(name: str, tmp_path: Path) -> None:
    async def run() -> None:
        answer, why = BAD[name]
        with issuers(tmp_path) as server:
            server.answer = answer
            async with following(server, tmp_path / "kept") as made:
                rules = policy({"issuer": "i", "jwks": '{"keys": []}'}, {"issuer": server.address})
                assert _addresses(made.discovery.resolved({KEY: rules})[KEY]) == [None, None]
                await made.discovery.asked(10)
                assert why in made.discovery.unknown()[server.address]
                (message,) = analyze_issuers({KEY: rules}, made.discovery.unknown())
                assert (message.path, message.type.code) == ("spec.jwtRules[1].issuer", "IST0101")
                assert why in message.text
                assert not made.told and made.noticed
                server.answer = lambda handler, path: say(handler, server.document(path))
                await made.until(lambda: _addresses(made.told[-1] if made.told else rules)[1] is not None)
                assert not made.discovery.unknown()

    asyncio.run(run())


def test_a_server_without_the_right_certificate_is_not_believed(tmp_path: Path) -> None:
    async def run() -> None:
        with issuers(tmp_path) as server:
            async with following(server, tmp_path / "kept", context=ssl.create_default_context()) as made:
                made.discovery.resolved({KEY: policy({"issuer": server.address})})
                await made.discovery.asked(10)
                assert "certificate verify failed" in made.discovery.unknown()[server.address]
            assert not server.asked

    asyncio.run(run())


def test_a_file_that_is_wrong_is_as_none(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    issuer = "https://issuer.example"
    for text in ("", "[]", "{", json.dumps({issuer: 1}), json.dumps({issuer: "http://x"})):
        kept.write_text(text)
        discovery = OpenIdDiscovery(lambda _: None, lambda: None, kept)
        assert _addresses(discovery.resolved({KEY: policy({"issuer": issuer})})[KEY]) == [None]


def test_a_whole_control_plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with issuers(tmp_path) as server, monkeypatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(server.roots))
        server.answer = lambda handler, path: say(handler, b"", 503)
        with whole(tmp_path / "data") as plane:
            plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
            plane.apply(policy({"issuer": server.address}).document)

            def complaints() -> str:
                status = plane.get(*KEY).get("status", {})
                return " ".join(one["message"] for one in status.get("validationMessages", ()))

            until(lambda: "are not known" in complaints(), "the status says what is wrong")
            assert "status 503" in complaints()
            server.answer = lambda handler, path: say(handler, server.document(path))
            until(lambda: not complaints(), "it is right", timeout=30)
        assert json.loads((tmp_path / "data" / "openid.json").read_text()) == {server.address: f"{server.address}/keys"}
