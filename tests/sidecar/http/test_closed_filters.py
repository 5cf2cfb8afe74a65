"""A connection manager that is gone has closed all its filters, also those that no chain of its own had."""

from __future__ import annotations

from typing import Any

import pytest

from sidecar.core.http_filter import HttpFilter
from tests.sidecar.http.running import GET, HELLO, TO_UP, Sidecar, bootstrap, http_filter, user_filter

JWKS = b"GET /jwks HTTP/1.1\r\n"


class Closing(HttpFilter):
    """Counts how often it is closed."""

    made: list[Closing] = []

    def __init__(self, config: Any) -> None:
        self.what = config["what"]
        self.closed = 0
        self.made.append(self)

    def on_request(self, stream: Any, end: bool) -> bool | None:
        stream.request.add(b"x-by", self.what.encode())
        return None

    def close(self) -> None:
        self.closed += 1


def _closing(what: str, **more: Any) -> dict[str, Any]:
    return {**user_filter("closing", what=what), "name": what, **more}


def test_every_filter_is_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Closing, "made", [])
    route = {**TO_UP, "typed_per_filter_config": {"usual": _closing("of a route")["typed_config"]}}
    upgrades = {"upgrade_configs": [{"upgrade_type": "websocket", "filters": [_closing("of an upgrade"), _router()]}]}
    sidecar = Sidecar(
        bootstrap(filters=[_closing("usual"), _closing("disabled", disabled=True)], routes=[route], manager=upgrades),
        {"closing": Closing},
    )
    sidecar.client().send(GET)
    assert b"x-by: of a route\r\n" in sidecar.host.receive()
    assert [one.closed for one in Closing.made] == [0, 0, 0, 0]
    sidecar.stack.remove_manager(sidecar.manager)
    found = {one.what: one.closed for one in Closing.made}
    assert found == {"usual": 1, "disabled": 1, "of a route": 1, "of an upgrade": 1}


def _router() -> dict[str, Any]:
    return http_filter("router.v3.Router")


def test_a_filter_that_cannot_be_made_takes_those_before_it_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Closing, "made", [])
    bad = {**_closing("bad"), "typed_config": {**_closing("bad")["typed_config"], "value": {}}}
    with pytest.raises(ValueError, match="refuses its configuration"):
        Sidecar(bootstrap(filters=[_closing("usual"), bad]), {"closing": Closing})
    assert [(one.what, one.closed) for one in Closing.made] == [("usual", 1)]


@pytest.mark.parametrize("disabled", [False, True])
def test_keys_are_fetched_no_more(disabled: bool) -> None:
    uri = {"uri": "http://keys/jwks", "cluster": "up", "timeout": "1s"}
    fetch = {"http_uri": uri, "async_fetch": {"failed_refetch_duration": "1s"}}
    jwt = http_filter(
        "jwt_authn.v3.JwtAuthentication", providers={"one": {"issuer": "one", "remote_jwks": fetch}}, rules=[]
    )
    sidecar = Sidecar(bootstrap(filters=[{**jwt, "disabled": disabled}]))
    sidecar.stack._static_waiting.begin(lambda: None)

    def fetched() -> int:
        asked = sidecar.asked()
        for host, data in asked:
            assert data.startswith(JWKS)
            host.send(HELLO.replace(b"200", b"404"))
        return len(asked)

    assert fetched() == 1
    sidecar.advance(1.1)
    assert fetched() == 1
    sidecar.stack.remove_manager(sidecar.manager)
    for _ in range(5):
        sidecar.advance(1.1)
        assert fetched() == 0
