"""Regular expressions that only some proxies take: Envoy refuses large ones if its bootstrap does not admit them.

Source: Envoy's reference, `type.matcher.v3.RegexMatcher`: the runtime's `re2.max_program_size.error_level`, 100 without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from controlplane.model.causes import Cause, joined
from controlplane.model.istio.http_match import StringMatch
from controlplane.model.istio.http_route import RegexRewrite
from controlplane.model.model_parsing import models
from controlplane.model.resource import Model
from controlplane.model.values import LARGEST_REGEX, LARGEST_REGEX_KEY, regex_size

_USUAL: Final = 100  # instructions, which Envoy takes by itself


def large_regexes(spec: Model, path: str) -> Iterator[Cause]:
    """Those of a model, which stands at ``path``, that an Envoy refuses whose bootstrap says nothing of their size."""
    for at, model in models(spec, path):
        if isinstance(model, StringMatch) and model.regex is not None:
            yield from _judged(model.regex, joined(at, "regex"))
        elif isinstance(model, RegexRewrite):
            yield from _judged(model.match, joined(at, "match"))


def _judged(regex: str, path: str) -> Iterator[Cause]:
    size = regex_size(regex)
    if size > _USUAL:
        yield Cause(
            path,
            f"makes an RE2 program of {size} instructions, and an Envoy takes {_USUAL} by itself: split it, or write "
            f"{LARGEST_REGEX_KEY}: {LARGEST_REGEX} into the layered_runtime of its bootstrap, as mizzen does",
        )
