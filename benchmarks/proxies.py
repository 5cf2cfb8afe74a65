"""The proxies that are compared: how each is found, started on a configuration, and told apart."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from benchmarks.backends import CONFIGURATIONS
from benchmarks.envoy import REPOSITORY, EnvoyMissing, envoy_binary
from benchmarks.ports import free_ports, get, wait_until_ok
from benchmarks.processes import PROXY_CORE, Child

OURS = "ours"
ENVOY = "envoy"


class ProxyMissing(Exception):
    """A proxy that was asked for is not installed here."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: `command(FILE)` starts it on a configuration made from `templates[shape]`.

    A shape is what a cell asks of a proxy (`route_only`, ...); a proxy without a template for it sits that cell out.
    """

    name: str
    command: Callable[[str], Sequence[str]]
    templates: Mapping[str, Path]

    def supports(self, shape: str) -> bool:
        return shape in self.templates


@dataclass(slots=True)
class Running:
    """A proxy that serves: `port` takes traffic, `admin_port` has the admin pages, `ready_s` is how long it took."""

    name: str
    child: Child
    port: int
    admin_port: int
    access_log: Path
    ready_s: float

    def url(self, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"

    def truncate_access_log(self) -> None:
        """Give the disk back between two runs; the proxies append, so they go on at the start."""
        with contextlib.suppress(FileNotFoundError), self.access_log.open("r+b") as log:
            log.truncate()


def counter(running: Running, name: str) -> int:
    """One counter or gauge of /stats, by its whole name; 0 when the proxy does not have it (yet)."""
    lines = get(running.admin_port, "/stats").decode().splitlines()
    return next((int(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}: ")), 0)


_ENVOY_SHAPES = {path.stem: path for path in CONFIGURATIONS.glob("*.yaml")}


def _ours() -> Proxy:
    if importlib.util.find_spec("sidecar.__main__") is None:
        raise ProxyMissing("the package `sidecar` cannot be run")
    return Proxy(OURS, lambda file: [sys.executable, "-m", "sidecar", "--config", file], _ENVOY_SHAPES)


def _envoy() -> Proxy:
    try:
        binary = str(envoy_binary())
    except EnvoyMissing as error:
        raise ProxyMissing(str(error)) from error
    flags = ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warn"]
    return Proxy(ENVOY, lambda file: [binary, "-c", file, *flags], _ENVOY_SHAPES)


def _installed(program: str) -> str:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise ProxyMissing(f"{program} is not installed")
    return path


def _haproxy() -> Proxy:
    program = _installed("haproxy")
    return Proxy("haproxy", lambda file: [program, "-db", "-f", file], {"route_only": CONFIGURATIONS / "haproxy.cfg"})


def _nginx() -> Proxy:
    program = _installed("nginx")
    return Proxy(
        "nginx",
        lambda file: [program, "-p", str(Path(file).parent), "-c", file, "-e", "stderr"],
        {"route_only": CONFIGURATIONS / "nginx_proxy.conf"},
    )


_KNOWN: Mapping[str, Callable[[], Proxy]] = {OURS: _ours, ENVOY: _envoy, "haproxy": _haproxy, "nginx": _nginx}
NAMES = tuple(_KNOWN)


def find(name: str) -> Proxy:
    """The proxy called `name`, one of NAMES. Raises ProxyMissing when it is not installed."""
    return _KNOWN[name]()


@contextlib.contextmanager
def serving(
    proxy: Proxy,
    shape: str,
    directory: Path,
    substitutions: Mapping[str, str],
    *,
    template: str | None = None,
    ready_timeout_s: float = 60.0,
) -> Iterator[Running]:
    """Run `proxy` on the proxy core until the block ends.

    `template` replaces the text of the shape's own file, for configurations that are generated. `Running.ready_s` counts
    from the start of the process to the first 200 from /ready.
    """
    port, admin_port = free_ports(2)
    path = proxy.templates[shape]
    access_log = directory / f"{proxy.name}-{shape}.access.log"
    text = Template(path.read_text() if template is None else template).substitute(
        substitutions, port=port, admin_port=admin_port, access_log=access_log, directory=directory
    )
    configuration = directory / f"{proxy.name}-{shape}{path.suffix}"
    configuration.write_text(text)
    output = directory / f"{proxy.name}-{shape}.out"
    started = time.perf_counter()
    with Child(proxy.command(str(configuration)), core=PROXY_CORE, output=output, cwd=REPOSITORY) as child:
        wait_until_ok(child, admin_port, "/ready", timeout_s=ready_timeout_s)
        yield Running(proxy.name, child, port, admin_port, access_log, time.perf_counter() - started)
