"""The composition root's part for explaining: a request's way through the stages, each told by the code that decides it.

listener -> filter chain -> TLS -> network filters -> connection manager -> route -> HTTP filters -> cluster. Loaded for the
first who asks. The connection and the request are imagined: nothing is sent, taken or counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sidecar.cluster.cluster import Cluster
from sidecar.cluster.explanation import explain_cluster
from sidecar.cluster.host import Host
from sidecar.config.network_ext_authz import NetworkExtAuthz
from sidecar.config.network_filters import NetworkRbac, SniCluster
from sidecar.config.tls_matches import match_for
from sidecar.core.address import Address
from sidecar.core.explanation import ENDS, OPEN, PASSES, TAKEN, Step
from sidecar.core.head import RequestHead
from sidecar.core.question import Question
from sidecar.core.rbac_explanation import explain_rbac
from sidecar.core.stream_info import ConnectionInfo
from sidecar.core.tls_options import APPLICATION_PROTOCOLS
from sidecar.http.connection_manager import ConnectionManager
from sidecar.http.rehearsal import Rehearsal
from sidecar.listener.explanation import explain_chains, find_listener, inspected, listening_on
from sidecar.listener.terminal import Chain
from sidecar.network.direct_response import DirectResponse
from sidecar.network.rbac import subject_of
from sidecar.network.tcp_proxy import TcpProxy
from sidecar.router.action_explanation import explain_action

if TYPE_CHECKING:
    from sidecar.stack import Stack

_CLIENTS_PORT = 50000


class Unanswerable(ValueError):
    """The question does not say enough; the text says what is missing."""


class Explanation:
    """One question asked of a stack. ``steps`` grow as the request advances; the last one is the verdict."""

    def __init__(self, stack: Stack, question: Question) -> None:
        self.stack = stack
        self.question = question
        self.steps: list[Step] = []
        self.leaving: RequestHead | None = None  # the request as it goes to the cluster
        self.offered: Sequence[str] = ()  # by ALPN, where a filter says so

    def explain(self) -> list[Step]:
        """All steps. Raises Unanswerable."""
        destination = self._destination()
        stack = self.stack
        listener, steps = find_listener(stack.listeners, stack.directory, destination, self.question.direction)
        self.steps += steps
        if listener is None:
            return self._verdict("nobody listens there: the connection is refused")
        source = Address(self.question.source, _CLIENTS_PORT)
        info = ConnectionInfo(0, destination, source, stack.worker.clock())
        info.listener_name = listener.config.name
        inspected(listener, self.question, info)
        chain, steps = explain_chains(listener, info)
        self.steps += steps
        if chain is None:
            return self._verdict("the connection is closed: no filter chain takes it")
        info.filter_chain_name = chain.name
        return self._through(chain, info)

    def _destination(self) -> Address:
        text = self.question.destination
        if not text:
            host, colon, port = self.question.authority.rpartition(":")
            if not colon or not port.isdecimal():
                host, port = self.question.authority, "443" if self.question.scheme == "https" else "80"
            text = f"{'127.0.0.1' if host == 'localhost' else host}:{port}"
        host, colon, port = text.rpartition(":")
        try:
            address = Address(host.strip("[]"), int(port))
            assert address.parsed is not None
            return address
        except ValueError:
            listening = self._only_address(port)
            if listening is None:
                raise Unanswerable(
                    f"{text} is no address: say with --to IP:PORT where the connection goes; listeners are on "
                    f"{', '.join(str(one.config.address) for one in self.stack.listeners)}"
                ) from None
            return listening

    def _only_address(self, port: str) -> Address | None:
        """Where a client that has only a name would connect: to the listener of that port, or to the only one there is."""
        addresses = [text for one in self.stack.listeners if one.config.bind_to_port for text in listening_on(one)]
        of_port = [text for text in addresses if text.rpartition(":")[2] == port]
        chosen = of_port if len(of_port) == 1 else addresses
        host, _, number = (chosen[0] if len(chosen) == 1 else "").rpartition(":")
        if not number.isdecimal():
            return None
        return Address("127.0.0.1" if host == "0.0.0.0" else "::1" if host == "[::]" else host.strip("[]"), int(number))

    def _verdict(self, text: str, outcome: str = ENDS) -> list[Step]:
        facts = {} if outcome == ENDS or self.leaving is None else {"request": _as_facts(self.leaving)}
        self.steps.append(Step("verdict", "", outcome, f"verdict: {text}", facts=facts))
        return self.steps

    # the connection

    def _through(self, chain: Chain, info: ConnectionInfo) -> list[Step]:
        terminal: Any = chain.terminal
        if chain.config.transport_socket is not None:
            from sidecar.transport.explanation import explain_downstream

            tls, step = explain_downstream(terminal.tls, self.question)
            self.steps.append(step)
            if tls is None:
                return self._verdict(f"the TLS handshake fails: {step.text.partition(': ')[2]}")
            info.tls = tls
            terminal = terminal.inner
        elif self.question.tls and isinstance(terminal, ConnectionManager):
            text = "the client speaks TLS, and this filter chain takes plain text: 400, and the connection is closed"
            self.steps.append(Step("transport socket", "", ENDS, f"transport socket: {text}"))
            return self._verdict(text)
        for one in chain.config.filters[:-1]:
            step = self._network_filter(one.name, one.typed_config, info)
            self.steps.append(step)
            if step.outcome == ENDS:
                return self._verdict("the connection is closed by a network filter")
        if isinstance(terminal, ConnectionManager):
            return self._through_manager(terminal, info)
        if isinstance(terminal, TcpProxy):
            return self._through_tcp_proxy(terminal, info)
        name = "direct_response" if isinstance(terminal, DirectResponse) else type(terminal).__name__
        self.steps.append(Step("network filter", name, ENDS, f"network filter {name}: answers, and closes"))
        return self._verdict("the connection is answered by a fixed text")

    def _network_filter(self, name: str, config: Any, info: ConnectionInfo) -> Step:
        title = f"network filter {name}"
        if isinstance(config, NetworkRbac):
            if config.rules is None:
                return Step("network filter", name, PASSES, f"{title}: passes: there are no rules to enforce")
            decision = explain_rbac(config.rules, subject_of(info, self.stack.worker.epoch))
            outcome, does = (PASSES, "passes") if decision.allowed else (ENDS, "closes the connection")
            return Step("network filter", name, outcome, f"{title}: {does}: {decision.summary}", decision.lines)
        if isinstance(config, NetworkExtAuthz):
            whom = f"the gRPC service at cluster {config.service.service.cluster_name!r}"
            matcher = config.filter_enabled_metadata
            only = "" if matcher is None else f", if its metadata {'/'.join((matcher.filter, *matcher.path))} fits"
            return Step("network filter", name, OPEN, f"{title}: asks {whom} about the connection{only}")
        if isinstance(config, SniCluster):
            return Step("network filter", name, PASSES, f"{title}: the server name says which cluster")
        text = f"{title}: it may close the connection: that is not told beforehand"
        return Step("network filter", name, OPEN, text)

    def _through_tcp_proxy(self, proxy: TcpProxy, info: ConnectionInfo) -> list[Step]:
        name, _ = proxy.choose(info)
        choices = tuple(
            f"{choice.weight} of {sum(one.weight for one in proxy.config.weighted_clusters)} connections go to "
            f"{choice.name!r}"
            for choice in proxy.config.weighted_clusters
        )
        text = f"network filter tcp_proxy leads to cluster {name!r}"
        self.steps.append(Step("network filter", "tcp_proxy", TAKEN, text, choices))
        return self._to_cluster(name, "the connection", "closed: no_cluster_found")

    # the request

    def _through_manager(self, manager: ConnectionManager, info: ConnectionInfo) -> list[Step]:
        question = self.question
        request = RequestHead(
            question.method,
            question.path,
            question.authority.encode(),
            list(question.fields),
            20 if question.http2 else 11,
            b"https" if info.tls is not None else b"http",
        )
        stream = Rehearsal(manager, info, request, self.stack.worker.clock())
        stream.request_ended = True
        given = request.path
        stream.prepare()
        if stream.answer is not None:
            self.steps.append(Step("connection manager", "", ENDS, "connection manager: answers the request itself"))
            return self._answered(stream)
        if request.path != given:
            text = f"connection manager: the path becomes {request.path.decode('latin-1')!r}"
            self.steps.append(Step("connection manager", "", PASSES, text))
        self.steps += self._route(manager, stream)
        route: Any = stream.route
        if route is not None and route.per_filter:
            stream.chain = route.request_chain or manager.chain_for(route)
        stream.ask_for_upgrade()
        if stream.answer is not None:
            self.steps.append(Step("connection manager", "", ENDS, "connection manager: no such upgrade is allowed"))
            return self._answered(stream)
        at = 0
        while at < len(stream.chain.filters):  # which may become others on the way
            step = stream.chain.filters[at].rehearse(stream)  # type: ignore[arg-type]
            at += 1
            if step is not None:
                self.steps.append(step)
            if stream.answer is not None:
                return self._answered(stream)
        if stream.route is not route:
            self.steps += self._route(manager, stream)
        if stream.route is None:
            return self._verdict("404: no route (NR)")
        return self._routed(stream)

    def _route(self, manager: ConnectionManager, stream: Rehearsal) -> list[Step]:
        """The route that the table itself finds, and what its explanation says of the others."""
        table: Any = manager.routes
        state = self.stack.worker.random.getstate()  # the explanation throws the same dice
        route = table.match(stream.request, stream)
        after = self.stack.worker.random.getstate()
        self.stack.worker.random.setstate(state)
        steps: list[Step] = table.explain(stream.request, stream)
        self.stack.worker.random.setstate(after)
        if route is not None and route.pick_cluster is not None:
            stream.cluster_name, entry = route.pick_cluster(stream.request, self.stack.worker.random, stream)
            weights = route.weights
            route = entry if entry is not None else route
            route.weights = weights
        stream.route = route
        return steps

    def _routed(self, stream: Rehearsal) -> list[Step]:
        route: Any = stream.route
        if route.rewrite is not None and route.kind == "forward":
            before = stream.request.path
            route.rewrite(stream.request, stream)
            if stream.request.path != before:
                path = stream.request.path.decode("latin-1")
                self.steps.append(Step("route action", route.name, PASSES, f"the path becomes {path!r}"))
        step = explain_action(route, stream)
        self.steps.append(step)
        if step.outcome == ENDS:
            return self._verdict(step.text)
        name = route.cluster_name or stream.cluster_name
        self.leaving = stream.request
        if route.upstream_request.offering:
            self.offered = (stream.filter_state or {}).get(APPLICATION_PROTOCOLS, ())
        return self._to_cluster(name, "the request", f"{route.cluster_not_found_response_code}: no cluster (NC)")

    def _answered(self, stream: Rehearsal) -> list[Step]:
        assert stream.answer is not None
        status, body, details = stream.answer
        if not status:
            return self._verdict(f"the stream is reset ({details})")
        text = body[:200].decode("utf-8", "replace").strip()
        said = f" {text!r}" if text else ""
        return self._verdict(f"{status}{said}" + (f" ({details})" if details else ""))

    def _to_cluster(self, name: str, what: str, without: str) -> list[Step]:
        cluster: Cluster | None = self.stack.clusters.get(name)
        step = explain_cluster(name, cluster, lambda host: self._spoken_to(cluster, host))
        self.steps.append(step)
        if cluster is None:
            return self._verdict(without)
        if step.outcome == ENDS:
            return self._verdict("503: no healthy upstream (UH)" if what == "the request" else "closed: no endpoint")
        return self._verdict(f"{what} goes to cluster {name!r}", TAKEN)

    def _spoken_to(self, cluster: Cluster | None, host: Host) -> tuple[str, Mapping[str, Any]]:
        from sidecar.transport.explanation import describe_upstream

        assert cluster is not None
        config = cluster.config
        match = match_for(config.transport_socket_matches, host.metadata)
        if match is None:
            return describe_upstream("", config.transport_socket, self.offered)
        return describe_upstream(match.name, match.transport_socket, self.offered)


def _as_facts(request: RequestHead) -> dict[str, Any]:
    def text(value: bytes) -> str:
        return value.decode("latin-1")

    return {
        "method": text(request.method),
        "path": text(request.path),
        "authority": text(request.authority),
        "headers": [f"{text(name)}: {text(value)}" for name, value in request.fields],
    }


def explain(stack: Stack, question: Question) -> list[Step]:
    """What would become of a request. Raises Unanswerable."""
    return Explanation(stack, question).explain()
