"""Conditions on an HTTP request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import Field

from controlplane.model.causes import Cause
from controlplane.model.istio.selection import label_problems
from controlplane.model.oneof import exclusive
from controlplane.model.resource import Model
from controlplane.model.values import Bool, Port, Regex, Str, dns_label_complaint, header_name_complaint

CLAIM = "@request.auth.claims"
"""Beginning of the name of a "header" that is a claim of the request's token: `@request.auth.claims.NAME` or `...[NAME]`."""


class StringMatch(Model):
    """A whole text, its beginning, or a regular expression (RE2) of all of it. None of them: that there is a value."""

    exact: Str | None = None
    prefix: Str | None = None
    regex: Regex | None = None

    def problems(self) -> Iterable[Cause]:
        yield from exclusive(self, "exact", "prefix", "regex")


class HTTPMatchRequest(Model):
    """Conditions that must all hold."""

    name: Str | None = None
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: Mapping[Str, StringMatch] = Field(default_factory=dict)
    port: Port | None = None
    source_labels: Mapping[Str, Str] = Field(default_factory=dict)
    gateways: tuple[Str, ...] = ()
    query_params: Mapping[Str, StringMatch] = Field(default_factory=dict)
    ignore_uri_case: Bool | None = None
    without_headers: Mapping[Str, StringMatch] = Field(default_factory=dict)
    source_namespace: Str | None = None
    stat_prefix: Str | None = None

    def problems(self) -> Iterable[Cause]:
        for path, names in (("headers", self.headers), ("withoutHeaders", self.without_headers)):
            for name in names:
                if not name.startswith(CLAIM) and (complaint := header_name_complaint(name)):
                    yield Cause(f"{path}[{name}]", complaint)
        for name, field in (
            ("uri", self.uri),
            ("scheme", self.scheme),
            ("method", self.method),
            ("authority", self.authority),
        ):
            if field is None:
                continue
            if field.exact is None and field.prefix is None and field.regex is None:
                yield Cause(name, "says nothing: give exact, prefix or regex")
            elif "" in (field.prefix, field.regex):
                yield Cause(name, "is empty: write what to match, or remove it")
        for name, match in self.query_params.items():
            if match.prefix is not None and not match.prefix:
                yield Cause(f"queryParams[{name}]", "is empty: write what to match")
        yield from label_problems(self.source_labels, "sourceLabels")
        if self.source_namespace and (complaint := dns_label_complaint(self.source_namespace)):
            yield Cause("sourceNamespace", complaint)
