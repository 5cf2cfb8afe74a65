"""/explain: what would become of a request, and why. Our own; Envoy has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson

from sidecar.admin.page import JSON, TEXT, Page, text
from sidecar.core.explanation import Step, written
from sidecar.core.question import Question, question_of

Explain = Callable[[Question], Sequence[Step]]

_ONCE: Final = ("url", "method", "to", "source", "peer", "alpn", "direction", "http2", "sni", "format")


def explain_page(explain: Explain, parameters: list[tuple[str, str]]) -> Page:
    """`url` and `method` describe the request, each `header=name:value` adds a header to it; the rest says who asks, and how."""
    given: dict[str, str] = {}
    headers: list[str] = []
    for name, value in parameters:
        if name == "header":
            headers.append(value)
        elif name in _ONCE:
            given[name] = value
        else:
            return text(f"unknown parameter {name!r}; there are {', '.join(_ONCE)} and header\n", 400)
    if "url" not in given:
        return text("url is required: say which request, as url=http://HOST:PORT/PATH\n", 400)
    form = given.pop("format", "text")
    if form not in ("text", "json"):
        return text(f"format={form} is neither text nor json\n", 400)
    http2 = given.pop("http2", "") not in ("", "false", "0")
    options: dict[str, Any] = {name: value for name, value in given.items() if name not in ("url", "method")}
    try:
        question = question_of(given.get("method", "GET"), given["url"], headers, http2=http2, **options)
        steps = explain(question)
    except ValueError as error:
        return text(f"{error}\n", 400)
    if form == "json":
        return Page(200, JSON, iter((orjson.dumps([step.as_json() for step in steps], default=str),)))
    return Page(200, TEXT, iter((written(steps).encode(),)))
