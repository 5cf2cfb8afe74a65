"""Regular expressions that proxies refuse for their size are told of by their path, or refused."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.model.causes import Invalid
from controlplane.model.parsing import parse, warnings

_LARGE = "a" * 97  # 101 instructions, one more than real Envoy takes by itself
_HUGE = "(?:" + "a?" * 100 + "){500}"


def _service(http: dict[str, Any]) -> dict[str, Any]:
    route = [{"destination": {"host": "reviews"}}]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "shop"},
        "spec": {"hosts": ["reviews"], "http": [{"route": route, **http}]},
    }


def _everywhere(regex: str) -> dict[str, Any]:
    return _service(
        {
            "match": [{"uri": {"regex": regex}, "headers": {"x-user": {"regex": regex}}}],
            "rewrite": {"uriRegexRewrite": {"match": regex, "rewrite": "/x"}},
            "corsPolicy": {"allowOrigins": [{"regex": regex}]},
        }
    )


_PATHS = {
    "spec.http[0].match[0].uri.regex",
    "spec.http[0].match[0].headers[x-user].regex",
    "spec.http[0].rewrite.uriRegexRewrite.match",
    "spec.http[0].corsPolicy.allowOrigins[0].regex",
}


def test_what_some_envoys_refuse_is_warned_of() -> None:
    found = {cause.path: cause.message for cause in warnings(parse(_everywhere(_LARGE)))}
    assert set(found) == _PATHS
    for message in found.values():
        assert message.startswith(
            "makes an RE2 program of 101 instructions, and an Envoy takes 100 by itself: split it"
        )
        assert "re2.max_program_size.error_level: 32768" in message
    assert warnings(parse(_everywhere(_LARGE[1:]))) == []


def test_it_is_counted_as_envoy_counts_bytes() -> None:
    assert warnings(parse(_service({"match": [{"uri": {"regex": "(?s).{96}"}}]}))) == []


def test_what_all_refuse_is_refused() -> None:
    with pytest.raises(Invalid) as found:
        parse(_everywhere(_HUGE))
    assert {cause.path for cause in found.value.causes} == _PATHS
    for cause in found.value.causes:
        assert "instructions, and proxies take 32768: repeat less, or split it" in cause.message
