"""HTTP routes of a VirtualService: how requests are matched and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from controlplane.model.causes import Cause, Reason
from controlplane.model.istio.destination import Destination, Headers, weight_problems, weights_problems
from controlplane.model.istio.http_match import HTTPMatchRequest
from controlplane.model.istio.http_policies import CorsPolicy, HTTPFaultInjection, HTTPRetry, Percent
from controlplane.model.oneof import exclusive, field_name
from controlplane.model.resource import Model
from controlplane.model.values import DurationOrZero, Int, PercentInt, Port, Regex, Str, UInt, shown


class HTTPRouteDestination(Model):
    """A destination with its share of the requests."""

    destination: Destination
    weight: Int | None = None
    headers: Headers | None = None

    def problems(self) -> Iterable[Cause]:
        return weight_problems(self.weight)


class HTTPRedirect(Model):
    """An answer that sends the client elsewhere."""

    uri: Str | None = None
    authority: Str | None = None
    port: Port | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    scheme: Str | None = None
    redirect_code: UInt | None = None

    def problems(self) -> Iterable[Cause]:
        yield from exclusive(self, "port", "derive_port")
        given = (self.uri, self.authority, self.scheme, self.port, self.derive_port)
        if not any(each is not None for each in given):
            yield Cause("", "says nothing: give a uri, an authority, a scheme or a port", Reason.REQUIRED)
        if self.redirect_code is not None and self.redirect_code not in (301, 302, 303, 307, 308):
            yield Cause(
                "redirectCode", f"must be 301, 302, 303, 307 or 308, not {self.redirect_code}", Reason.NOT_SUPPORTED
            )
        if self.scheme is not None and self.scheme not in ("http", "https"):
            yield Cause("scheme", f'must be "http" or "https", not {shown(self.scheme)}', Reason.NOT_SUPPORTED)


class HTTPBody(Model):
    """The body of a direct response: text, or bytes in base64."""

    string: Str | None = None
    bytes: Str | None = None

    def problems(self) -> Iterable[Cause]:
        yield from exclusive(self, "string", "bytes", required=True)
        if len(self.string or self.bytes or "") > 1024 * 1024:
            yield Cause("", "a body has at most 1 MiB: serve a larger one from a service")


class HTTPDirectResponse(Model):
    """An answer that is given without asking anybody."""

    status: UInt
    body: HTTPBody | None = None

    def problems(self) -> Iterable[Cause]:
        if not 200 <= self.status <= 599:
            yield Cause("status", f"an HTTP status must be from 200 to 599, not {self.status}")


class Delegate(Model):
    """The VirtualService, without hosts, that has the routes for this part of the traffic."""

    name: Str
    namespace: Str | None = None


class RegexRewrite(Model):
    """What of the path is replaced, and by what (`\\1` is the first group)."""

    match: Regex
    rewrite: Str

    def problems(self) -> Iterable[Cause]:
        if not self.match:
            yield Cause("match", "is empty: write what of the path is replaced", Reason.REQUIRED)
        if not self.rewrite:
            yield Cause("rewrite", "is empty: write what stands there instead", Reason.REQUIRED)


class HTTPRewrite(Model):
    """What is changed of the path and the authority before the request goes on."""

    uri: Str | None = None
    authority: Str | None = None
    uri_regex_rewrite: RegexRewrite | None = None

    def problems(self) -> Iterable[Cause]:
        yield from exclusive(self, "uri", "uri_regex_rewrite")
        if self.uri is None and self.authority is None and self.uri_regex_rewrite is None:
            yield Cause("", "says nothing: give a uri, a uriRegexRewrite or an authority", Reason.REQUIRED)


class HTTPMirrorPolicy(Model):
    """A copy of requests, or of a part of them, whose answers nobody waits for."""

    destination: Destination
    percentage: Percent | None = None


class HTTPRoute(Model):
    """What becomes of requests for which one of ``match`` holds (all requests, if there is none)."""

    name: Str | None = None
    match: tuple[HTTPMatchRequest, ...] = ()
    route: tuple[HTTPRouteDestination, ...] = ()
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HTTPRewrite | None = None
    timeout: DurationOrZero | None = None
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    mirror: Destination | None = None
    mirrors: tuple[HTTPMirrorPolicy, ...] = ()
    mirror_percent: PercentInt | None = None
    mirror_percentage: Percent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None

    def problems(self) -> Iterable[Cause]:
        yield from self._action_problems()
        yield from self._authority_problems()
        yield from exclusive(self, "mirror", "mirrors")
        yield from exclusive(self, "mirror_percent", "mirror_percentage")
        if self.mirror is None and (self.mirror_percent is not None or self.mirror_percentage is not None):
            yield Cause("mirror", "is required where its percentage is given: name the destination", Reason.REQUIRED)
        if self.delegate is None and self.redirect is None and self.direct_response is None:
            yield from weights_problems([each.weight for each in self.route], "route")

    def _authority_problems(self) -> Iterator[Cause]:
        operations = self.headers.request if self.headers is not None else None
        if operations is None or self.rewrite is None or self.rewrite.authority is None:
            return
        for operation, names in (("set", operations.set), ("add", operations.add)):
            for name in names:
                if name.lower() in ("host", ":authority"):
                    yield Cause(
                        f"headers.request.{operation}[{name}]", "rewrite.authority sets it too: keep one of them"
                    )

    def _action_problems(self) -> Iterator[Cause]:
        actions = ("route", "redirect", "direct_response")
        if self.delegate is not None:
            yield from exclusive(self, "delegate", *actions)
            if not self.delegate.name:
                yield Cause("delegate.name", "is required: name the VirtualService without hosts", Reason.REQUIRED)
            yield from self.regex_problems()
            return
        yield from exclusive(self, *actions, required=True)
        for name in ("redirect", "direct_response"):
            if getattr(self, name) is not None and self.rewrite is not None:
                yield Cause("rewrite", f"has no effect beside {field_name(self, name)}: remove one of them")
        if self.redirect is not None and self.fault is not None:
            yield Cause("fault", "has no effect beside redirect: remove one of them")

    def regex_problems(self) -> Iterator[Cause]:
        """Causes for regular expressions in the conditions, which delegation does not admit: conditions could not be merged."""
        for index, match in enumerate(self.match):
            for name in ("uri", "scheme", "method", "authority"):
                field = getattr(match, name)
                if field is not None and field.regex is not None:
                    yield Cause(f"match[{index}].{name}.regex", _NO_REGEX)
            for path, fields in (
                ("headers", match.headers),
                ("queryParams", match.query_params),
                ("withoutHeaders", match.without_headers),
            ):
                for name, field in fields.items():
                    if field.regex is not None:
                        yield Cause(f"match[{index}].{path}[{name}].regex", _NO_REGEX)


_NO_REGEX = "a route that delegates, or is delegated to, cannot match by regex: use exact or prefix"
