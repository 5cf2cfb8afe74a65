"""What a request of a known shape becomes on a route: the head that goes upstream, and what the router decides by."""

from __future__ import annotations

from typing import Any

from sidecar.codec.http1_head import render_fields
from sidecar.core.head import Field, RequestHead
from sidecar.express.heads import IndexedRequestHead, ShapedRequestHead, Template
from sidecar.express.shape import Cut, literal, may_vary

FORWARD = "forward"
SKIPPED = b"%.0b"
"""What takes a value of a template's and shows nothing of it."""


class Outcome:
    """What the preparation makes of the requests of a shape: the fields that go upstream, and what else it found out."""

    __slots__ = ("generated", "remote_address", "replaced", "template")

    def __init__(self, template: Template, generated: int, replaced: bool, remote_address: Any) -> None:
        self.template = template
        self.generated = generated
        self.replaced = replaced
        self.remote_address = remote_address


class RequestShape:
    """Requests that differ in path and open values only, as connections of one kind send them.

    ``generated`` says which of the outgoing values is a new request id, -1 for none; ``replaced`` whether it takes the place
    of one that came. ``places`` are the names of the open fields and the numbers of their values; ``indexed`` is whether
    anybody asks for fields by name. ``remote_address`` is the client's, where the fields tell it. ``idle`` keeps streams for
    the next requests. ``http2`` and ``version`` say which protocol they come by. ``certain`` is the plan of all of them as
    long as ``routes`` are those of the connection manager.
    """

    __slots__ = (
        "certain",
        "generated",
        "head",
        "idle",
        "indexed",
        "places",
        "plans",
        "remote_address",
        "replaced",
        "routes",
        "template",
    )  # fmt: skip

    http2 = False
    version = 20

    def __init__(self, method: bytes, authority: bytes, scheme: bytes, outcome: Outcome) -> None:
        self.head = (method, authority, scheme, outcome.template)
        self.template = outcome.template
        self.generated = outcome.generated
        self.replaced = outcome.replaced
        self.remote_address = outcome.remote_address
        self.places = tuple((name, number) for _, name, number in outcome.template.open)
        self.indexed = False
        self.plans: dict[Any, Plan | None] = {}
        self.idle: list[Any] = []
        self.certain: Any = None
        self.routes: Any = None

    def new_head(self) -> ShapedRequestHead | IndexedRequestHead:
        head = IndexedRequestHead(*self.head) if self.indexed else ShapedRequestHead(*self.head)
        head.version = self.version
        return head

    def want_index(self) -> None:
        """Somebody has looked at a field by its name: from now on heads come with their index."""
        self.indexed = True
        self.idle.clear()

    def forget_routes(self) -> None:
        """The routes are others now."""
        self.plans.clear()
        self.certain = self.routes = None

    def differs(self, head: RequestHead, path: bytes) -> bool:
        """Whether a filter has changed what a request is addressed to."""
        method, authority, scheme, _ = self.head
        return (
            head.path is not path
            or head.authority is not authority
            or head.method is not method
            or head.scheme is not scheme
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.head[0]!r} {self.head[1]!r}, {len(self.plans)} plans>"


class Http1RequestShape(RequestShape):
    """The same with the bytes of a head. ``start`` is the method, a blank and the slash of the path, which begins at
    ``path_at``; ``length_at`` says which of the values is the length of a body; ``closes`` whether the request is its
    connection's last, which goes on by another ``forward``.
    """

    __slots__ = (
        "accepts",
        "closes",
        "constants",
        "cut",
        "forward",
        "length_at",
        "lines",
        "path_at",
        "start",
        "unpack",
        "version",
    )  # fmt: skip

    def __init__(self, cut: Cut, head: RequestHead, closes: bool, outcome: Outcome) -> None:
        method = head.method
        super().__init__(method, head.authority, head.scheme, outcome)
        self.version = head.version
        self.closes = closes
        self.forward: Any = None
        self.cut = cut
        self.unpack = cut.unpack
        self.accepts = cut.accepts
        self.constants = cut.constants
        self.start = method + b" /"
        self.path_at = len(method) + 1
        self.length_at = cut.names.index(b"content-length") if b"content-length" in cut.names else -1
        self.lines: list[bytes] = []


class Plan:
    """A shape on a route. ``render % (path, *values)`` is what goes upstream; ``idle`` keeps upstream requests.

    ``variants`` are the plans of requests that filters have made other heads of, by their templates.
    """

    __slots__ = (
        "answers",
        "call",
        "cluster_name",
        "expected",
        "head",
        "idle",
        "internal",
        "per_try_timeout",
        "priority",
        "render",
        "responses",
        "retries",
        "retry",
        "route",
        "template",
        "timeout",
        "variants",
    )  # fmt: skip

    def __init__(self, cluster_name: str, route: Any, responses: Any) -> None:
        self.cluster_name = cluster_name
        self.route = route
        self.priority: int = route.priority
        self.retry = route.retry
        self.retries: int = 0 if route.retry is None else route.retry.num_retries
        self.timeout: float = route.timeout or 0.0
        self.per_try_timeout: float = 0.0 if route.retry is None else route.retry.per_try_timeout or 0.0
        self.responses = responses
        self.answers: dict[int, Any] = responses.shapes
        self.idle: list[Any] = []
        self.internal = False
        self.call = False  # of gRPC, perhaps
        self.expected: bytes | None = None
        self.template = Template([], {}, ())
        self.head: tuple[Any, ...] = ()
        self.render = b""
        self.variants: dict[Template, Plan | None] = {}

    def __repr__(self) -> str:
        return f"<Plan to {self.cluster_name}>"


_DECIDING = frozenset((b"content-type", b"grpc-timeout", b"x-request-id"))


def is_plain(route: Any) -> bool:
    """Whether a route does no more with a request than forward it to a cluster that is known by now."""
    retry = route.retry
    return (
        route.kind == FORWARD
        and route.limit is None
        and not route.per_filter
        and route.mutate_request is None
        and route.rewrite is None
        and not route.auto_host_rewrite
        and not route.mirrors
        and route.mutate_response is None
        and not route.include_request_attempt_count
        and not route.include_attempt_count_in_response
        and route.hash_key is None
        and route.internal_redirects is None
        and not route.upstream_request.observes
        and not route.upstream_request.offering
        and route.max_grpc_timeout is None
        and (
            retry is None
            or not (
                retry.retriable_request_headers or retry.per_try_idle_timeout or retry.header_matchers or retry.hedges
            )
        )
    )


def make_plan(
    shape: RequestShape,
    route: Any,
    cluster_name: str,
    suppress_headers: bool,
    responses: Any,
    template: Template | None = None,
) -> Plan:
    """The plan of a plain route for a shape; ``template`` is the one of the head behind the filters, if it is another one."""
    plan = Plan(cluster_name, route, responses)
    method, authority, _, own = shape.head
    if template is None:
        template = own
    expected = plan.per_try_timeout or plan.timeout
    if expected and not suppress_headers:
        plan.expected = b"%d" % int(expected * 1000 + 1e-6)
        template = template.with_field(b"x-envoy-expected-rq-timeout-ms", plan.expected)
    plan.template = template
    plan.call = template.index.get(b"content-type", b"").startswith(b"application/grpc")
    plan.head = shape.head
    plan.internal = template.index.get(b"x-envoy-internal") == b"true"
    plan.render = b"%b %%b HTTP/1.1\r\nhost: %b\r\n%b" % (
        literal(method), literal(authority), render_template(template)
    )  # fmt: skip
    return plan


def make_variant(
    plan: Plan, shape: RequestShape, route: Any, template: Template, suppress_headers: bool
) -> Plan | None:
    """The plan for requests from which filters have taken fields, or to which they have added some; None if the router may
    decide by these.
    """
    made = None
    if all(may_vary(name) and name not in _DECIDING for name in template.changed):
        made = make_plan(shape, route, plan.cluster_name, suppress_headers, plan.responses, template)
    plan.variants[template] = made
    return made


def render_template(template: Template) -> bytes:
    """The field lines of a template, with ``%b`` for each value, and the empty line behind them."""
    places = {at for at, _, _ in template.open}
    before, after = template.skips()
    fields: list[Field] = [
        (literal(name), SKIPPED * before.get(at, 0) + b"%b" if at in places else literal(value))
        for at, (name, value) in enumerate(template.fields)
    ]
    return render_fields(fields) + SKIPPED * after
