"""Carries out cases against both proxies, Envoy first, on one set of upstreams.

One pair of proxies runs at a time, that of the current case's bootstrap; cases come sorted by bootstrap.
"""

from __future__ import annotations

import re
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
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
from tests.differential.seen import Seen
from tests.differential.upstream import Upstreams

SETTLE_SECONDS = 0.25
REST_SECONDS = 0.005
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
        self._logs: dict[Path, dict[int, list[str]]] = {}
        self._watcher = ThreadPoolExecutor(1, "watcher")
        self._starts = 0

    def pair(self, bootstrap: str) -> tuple[Proxy, Proxy]:
        """Envoy and the subject on this bootstrap; those of another one are stopped.

        Raises ProxyFailedError when one of them does not start on it, every time that it is asked for.
        """
        if bootstrap in self._failed:
            raise ProxyFailedError(self._failed[bootstrap])
        if self._pair is None or self._bootstrap != bootstrap:
            self.stop_pair()
            pair = self._launch(ENVOY, bootstrap), self._launch(self.subject, bootstrap)
            try:
                for proxy in pair:
                    proxy.wait_ready()
            except ProxyFailedError as error:
                for proxy in pair:
                    proxy.stop()
                self._failed[bootstrap] = str(error)
                raise
            self._pair = pair
            self._bootstrap = bootstrap
        for proxy in self._pair:
            proxy.check()
        return self._pair

    def start(self, kind: str, bootstrap: str) -> Proxy:
        """Start one proxy on a bootstrap with ports of its own; the caller stops it."""
        proxy = self._launch(kind, bootstrap)
        proxy.wait_ready()
        return proxy

    def _launch(self, kind: str, bootstrap: str) -> Proxy:
        self._starts += 1
        directory = Path(self.directory.name) / f"{bootstrap}-{kind}-{self._starts}"
        ports: dict[str, int] = {}

        def take(name: str) -> int:
            ports[name] = self.ports.take()
            return ports[name]

        site = Site(self.upstream_ports, take, directory)
        return proxies.launch(kind, BOOTSTRAPS[bootstrap](site), ports, directory)

    def stop_pair(self) -> None:
        """Stop the current pair, if there is one; this also makes them write what they hold of their logs."""
        for proxy in self._pair or ():
            proxy.stop()
        self._pair = None

    def exchange(self, case: Case) -> Exchange:
        """Run a case on both proxies, or give what was found when it ran before."""
        if case.name not in self.exchanges:
            envoy, subject = self.pair(case.bootstrap)
            exchange = self._exchange(case, envoy, subject)
            if case.deadline < PATIENT_SECONDS and unaccounted(case.name, exchange.differences()):
                # Half a second is enough to see that nothing comes, but for a machine that stood still meanwhile.
                patient = replace(case, deadline=PATIENT_SECONDS)
                exchange = self._exchange(patient, envoy, subject)
            self.exchanges[case.name] = exchange
            for proxy in (envoy, subject):
                proxy.check()
        return self.exchanges[case.name]

    def _exchange(self, case: Case, envoy: Proxy, subject: Proxy) -> Exchange:
        """Run a case on both, where nothing is left to come to the upstreams with Envoy watched during the other's turn."""
        with self._carried_out(case, envoy) as client:
            if case.upstream_requests or not (client.satisfied and self.upstreams.rests(REST_SECONDS)):
                self._finish(case, client)
            else:
                seen = self.upstreams.seen(0, FINISH_SECONDS)
                watch = self._watcher.submit(client.linger)
                try:
                    of_subject = self.run(case, subject)
                finally:
                    watch.result()
                return Exchange(self._outcome(case, envoy, client, seen), of_subject)
        seen = self.upstreams.seen(case.upstream_requests, FINISH_SECONDS)
        return Exchange(self._outcome(case, envoy, client, seen), self.run(case, subject))

    def run(self, case: Case, proxy: Proxy) -> Run:
        """Run a case on one proxy."""
        with self._carried_out(case, proxy) as client:
            self._finish(case, client)
        return self._outcome(case, proxy, client, self.upstreams.seen(case.upstream_requests, FINISH_SECONDS))

    @contextmanager
    def _carried_out(self, case: Case, proxy: Proxy) -> Iterator[Client]:
        """The client after the steps of the case, with its connections open."""
        self.upstreams.begin(case.upstreams, case.upstream_settings)
        client = Client(("127.0.0.1", proxy.ports[case.listener]), self._with_ports(case), self.upstreams.count)
        try:
            client.carry_out()
            yield client
        finally:
            client.close()

    def _finish(self, case: Case, client: Client) -> None:
        client.linger()
        self.upstreams.wait_count(case.upstream_requests, FINISH_SECONDS)
        self.upstreams.seen(case.upstream_requests, SETTLE_SECONDS)

    def _outcome(self, case: Case, proxy: Proxy, client: Client, seen: Sequence[Seen]) -> Run:
        for one in seen:
            assert not one.fault, f"{case.name} has a script that cannot be carried out: {one.fault}"
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
            log_fields(case, _ordered(case, self._lines(run)), self.names(run.proxy))
            for run in (exchange.envoy, exchange.subject)
        ]
        return differences(*sides)

    def _lines(self, run: Run) -> list[str]:
        """The lines whose ``peer`` is one of the run's client ports, by connection and then in their order."""
        path = run.proxy.access_log
        if path not in self._logs:
            self._logs[path] = _by_port(path)
        return [line for port in run.client_ports for line in self._logs[path].get(port, ())]

    def close(self) -> None:
        self.stop_pair()
        self._watcher.shutdown()
        self.upstreams.close()
        self.directory.cleanup()


def _ordered(case: Case, lines: list[str]) -> list[str]:
    """The lines as they came; by path where requests end in no fixed order."""
    return sorted(lines, key=lambda line: str(parsed_line(line).get("path"))) if case.unordered else lines


def _by_port(path: Path) -> dict[int, list[str]]:
    """The lines of a log that nobody writes any more, by the port of their ``peer``."""
    found: dict[int, list[str]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            peer = str(parsed_line(line).get("peer"))
            port = int(peer.rpartition(":")[2]) if ":" in peer else 0
            found.setdefault(port, []).append(line)
    return found
