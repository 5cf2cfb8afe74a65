"""Carries out cases against both proxies, Envoy first, on one set of upstreams.

One pair of proxies runs at a time, that of the current case's bootstrap; cases come sorted by bootstrap.
"""

from __future__ import annotations

import re
import tempfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.differential import proxies
from tests.differential.blocks import Site
from tests.differential.case import Case, Send, Step
from tests.differential.cases import BOOTSTRAPS, HTTP_UPSTREAMS, RAW_UPSTREAMS
from tests.differential.client import Client
from tests.differential.known_differences import unaccounted
from tests.differential.outcome import Difference, Fields, Names, differences, fields_of, log_fields, parsed_line
from tests.differential.proxies import ENVOY, FreePorts, Proxy, ProxyFailedError
from tests.differential.upstream import Upstreams

SETTLE_SECONDS = 0.25
FINISH_SECONDS = 3.0
PATIENT_SECONDS = 5.0
_OF_PORTS = re.compile(rb"\{(port|address|cookie)-([a-z0-9]+)\}")


@dataclass(frozen=True, slots=True)
class Run:
    """One case on one proxy: what came of it, and what shows the access-log lines that belong to it."""

    fields: Fields
    proxy: Proxy
    client_ports: tuple[int, ...]
    received: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One case on both proxies."""

    envoy: Run
    subject: Run

    def differences(self) -> list[Difference]:
        return differences(self.envoy.fields, self.subject.fields)


class Runner:
    """Both proxies, the upstreams, and what has been run. ``subject`` is the kind of the proxy compared with Envoy."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.ports = FreePorts()
        self.upstreams = Upstreams(HTTP_UPSTREAMS, RAW_UPSTREAMS)
        self.upstream_ports = {**self.upstreams.ports, "refused": self.ports.take()}
        self.directory = tempfile.TemporaryDirectory(prefix="mizzen-differential-")
        self.exchanges: dict[str, Exchange] = {}
        self._bootstrap = ""
        self._pair: tuple[Proxy, Proxy] | None = None
        self._failed: dict[str, str] = {}
        self._starts = 0

    def pair(self, bootstrap: str) -> tuple[Proxy, Proxy]:
        """Envoy and the subject on this bootstrap; those of another one are stopped.

        Raises ProxyFailedError when one of them does not start on it, every time that it is asked for.
        """
        if bootstrap in self._failed:
            raise ProxyFailedError(self._failed[bootstrap])
        if self._pair is None or self._bootstrap != bootstrap:
            self.stop_pair()
            envoy = self.start(ENVOY, bootstrap)
            try:
                self._pair = envoy, self.start(self.subject, bootstrap)
            except ProxyFailedError as error:
                envoy.stop()
                self._failed[bootstrap] = str(error)
                raise
            self._bootstrap = bootstrap
        for proxy in self._pair:
            proxy.check()
        return self._pair

    def start(self, kind: str, bootstrap: str) -> Proxy:
        """Start one proxy on a bootstrap with ports of its own; the caller stops it."""
        self._starts += 1
        directory = Path(self.directory.name) / f"{bootstrap}-{kind}-{self._starts}"
        ports: dict[str, int] = {}

        def take(name: str) -> int:
            ports[name] = self.ports.take()
            return ports[name]

        site = Site(self.upstream_ports, take, directory)
        return proxies.start(kind, BOOTSTRAPS[bootstrap](site), ports, directory)

    def stop_pair(self) -> None:
        """Stop the current pair, if there is one; this also makes them write what they hold of their logs."""
        for proxy in self._pair or ():
            proxy.stop()
        self._pair = None

    def exchange(self, case: Case) -> Exchange:
        """Run a case on both proxies, or give what was found when it ran before."""
        if case.name not in self.exchanges:
            envoy, subject = self.pair(case.bootstrap)
            exchange = Exchange(self.run(case, envoy), self.run(case, subject))
            if case.deadline < PATIENT_SECONDS and unaccounted(case.name, exchange.differences()):
                # Half a second is enough to see that nothing comes, but for a machine that stood still meanwhile.
                patient = replace(case, deadline=PATIENT_SECONDS)
                exchange = Exchange(self.run(patient, envoy), self.run(patient, subject))
            self.exchanges[case.name] = exchange
            for proxy in (envoy, subject):
                proxy.check()
        return self.exchanges[case.name]

    def run(self, case: Case, proxy: Proxy) -> Run:
        """Run a case on one proxy."""
        self.upstreams.begin(case.upstreams, case.upstream_settings)
        client = Client(("127.0.0.1", proxy.ports[case.listener]), self._with_ports(case), self.upstreams.count)
        try:
            client.run()
            self.upstreams.wait_count(case.upstream_requests, FINISH_SECONDS)
            self.upstreams.seen(case.upstream_requests, SETTLE_SECONDS)
        finally:
            client.close()
        seen = self.upstreams.seen(case.upstream_requests, FINISH_SECONDS)
        ports = tuple(connection.local_port for _, connection in sorted(client.connections.items()))
        received = {number: connection.received for number, connection in client.connections.items()}
        return Run(fields_of(case, client, seen, self.names(proxy)), proxy, ports, received)

    def _with_ports(self, case: Case) -> Case:
        """The case with what depends on ports filled in, where it is used."""
        return replace(case, steps=tuple(self._filled(step) for step in case.steps))

    def _filled(self, step: Step) -> Step:
        if not isinstance(step, Send) or not _OF_PORTS.search(step.data):
            return step
        return replace(step, data=_OF_PORTS.sub(self._of_port, step.data))

    def _of_port(self, found: re.Match[bytes]) -> bytes:
        port = b"%d" % self.upstream_ports[found[2].decode()]
        address = b"127.0.0.1:" + port
        match found[1]:
            case b"port":
                return port
            case b"address":
                return b64encode(address)
            case _:
                return b64encode(b"\x0a%c%b" % (len(address), address))

    def names(self, proxy: Proxy) -> Names:
        """What every known port stands for."""
        known = {port: f"upstream-{name}" for name, port in self.upstream_ports.items()}
        return Names(known | {port: name for name, port in proxy.ports.items()})

    def access_log(self, case: Case) -> list[Difference]:
        """The differences in the access-log lines of a case."""
        exchange = self.exchange(case)
        for run in (exchange.envoy, exchange.subject):
            if self._pair and run.proxy in self._pair:
                self.stop_pair()
        sides = [
            log_fields(case, _ordered(case, _lines(run.proxy.access_log, run.client_ports)), self.names(run.proxy))
            for run in (exchange.envoy, exchange.subject)
        ]
        return differences(*sides)

    def close(self) -> None:
        self.stop_pair()
        self.upstreams.close()
        self.directory.cleanup()


def _ordered(case: Case, lines: list[str]) -> list[str]:
    """The lines as they came; by path where requests end in no fixed order."""
    return sorted(lines, key=lambda line: str(parsed_line(line).get("path"))) if case.unordered else lines


def _lines(path: Path, client_ports: Sequence[int]) -> list[str]:
    """The lines whose ``peer`` is one of these client ports, by connection and then in their order."""
    if not path.exists():
        return []
    found: dict[int, list[str]] = {port: [] for port in client_ports}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        peer = str(parsed_line(line).get("peer"))
        port = int(peer.rpartition(":")[2]) if ":" in peer else 0
        if port in found:
            found[port].append(line)
    return [line for port in client_ports for line in found[port]]
