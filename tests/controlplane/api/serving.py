"""The REST API as it is served: over HTTPS, on a store in a file, with tokens; and real kubectl against it."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, TypeVar

import yaml

from controlplane.api.application import Application
from controlplane.api.server import ApiServer
from controlplane.citadel.authority import CertificateAuthority
from controlplane.citadel.citadel import Citadel
from controlplane.citadel.kubeconfig import keep_admin_kubeconfig
from controlplane.citadel.server_certificates import ServerCertificates
from controlplane.citadel.tokens import Tokens
from controlplane.galley.etcd_store import EtcdStore
from controlplane.galley.mirror import FilesMirror, ShownStore
from controlplane.galley.sqlite_store import SqliteStore
from controlplane.model.kinds import KINDS
from controlplane.model.parsing import parse

_T = TypeVar("_T")


@dataclass
class Served:
    """A server that runs, and what it was made of."""

    store: EtcdStore | SqliteStore
    mirror: FilesMirror
    citadel: Citadel
    authority: CertificateAuthority
    tokens: Tokens
    application: Application
    server: ApiServer
    kubeconfig: Path

    @property
    def admin_token(self) -> str:
        return str(yaml.safe_load(self.kubeconfig.read_text())["users"][0]["user"]["token"])


@asynccontextmanager
async def serve(directory: Path, etcd: str = "", **arguments: Any) -> AsyncIterator[Served]:
    """The API in this loop, on an etcd (its URL), else on SQLite. ``arguments`` go to the Application."""
    store = await EtcdStore.open(etcd) if etcd else await SqliteStore.open(directory / "store.db")
    citadel = await Citadel.open(store, directory)
    authority, tokens = citadel.authority, citadel.tokens
    certificates = ServerCertificates(authority)
    mirror = FilesMirror(store, KINDS, "test")
    mirroring = asyncio.create_task(mirror.run())
    application = Application(
        ShownStore(store),
        KINDS,
        parse,
        citadel.credentials,
        tokens=tokens,
        certificates=citadel.issuance,
        operations=citadel.operations,
        **arguments,
    )
    server = ApiServer(application, "127.0.0.1", 0, certificates.context(client_certificates=True))
    await server.start()
    kubeconfig = directory / "admin.kubeconfig"
    await keep_admin_kubeconfig(kubeconfig, server.url, tokens, authority)
    try:
        yield Served(store, mirror, citadel, authority, tokens, application, server, kubeconfig)
    finally:
        citadel.bundles.close()
        await server.stop()
        mirroring.cancel()
        await asyncio.wait([mirroring])
        await citadel.close()
        await store.close()


class Background:
    """``serve`` in a loop of its own, in a thread, for tests that call programs. A context manager."""

    def __init__(
        self,
        directory: Path,
        *,
        loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
        **arguments: Any,
    ) -> None:
        self._directory = directory
        self._arguments = arguments
        self._loop = loop()
        self._started = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.served: Served

    def __enter__(self) -> Background:
        self._thread.start()
        self._started.wait(20)
        if self._failed is not None:
            raise self._failed
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(20)

    def call(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run something in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._failed = error
            self._started.set()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
            self._loop.close()

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        async with serve(self._directory, **self._arguments) as self.served:
            self._started.set()
            await self._end.wait()


@dataclass
class Answer:
    """A response, read whole."""

    status: int
    headers: Message
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        return str(self.json["message"])


class Client:
    """HTTPS requests with a token (the admin's, unless another is given; "" for none), one connection each."""

    def __init__(self, background: Background, token: str | None = None) -> None:
        self.background = background
        self.port = background.served.server.port
        self.token = background.served.admin_token if token is None else token
        self.tls = ssl.create_default_context(cadata=background.served.authority.pem.decode())

    def open(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        """The connection and the response, whose body is not read."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.tls)
        told = {"Content-Type": "application/json"} if body is not None else {}
        if self.token:
            told["Authorization"] = f"Bearer {self.token}"
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, path, content, told | (headers or {}))
        return connection, connection.getresponse()

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """``headers`` are named with underscores."""
        connection, response = self.open(
            method, path, body, {name.replace("_", "-"): headers[name] for name in headers}
        )
        try:
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


class Watcher:
    """A watch over HTTPS: its events, one by one. A context manager."""

    def __init__(self, client: Client, path: str, **headers: str) -> None:
        self._connection, self.response = client.open("GET", path, headers=headers)

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def next(self) -> Any:
        """The next event; None when the stream has ended."""
        line = self.response.readline()
        return json.loads(line) if line else None


def virtual_service(name: str, namespace: str = "default", **metadata: Any) -> dict[str, Any]:
    """A small resource."""
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"hosts": [name], "http": [{"route": [{"destination": {"host": name}}]}]},
    }


def collection(namespace: str = "default", version: str = "v1") -> str:
    """The path of the VirtualServices of a namespace."""
    return f"/apis/networking.istio.io/{version}/namespaces/{namespace}/virtualservices"


def kubectls() -> Sequence[str]:
    """The kubectl programs to test with: that of PATH, and those that MIZZEN_KUBECTL names (separated by colons)."""
    named = os.environ.get("MIZZEN_KUBECTL", "").split(":")
    return [path for path in dict.fromkeys([shutil.which("kubectl") or "", *named]) if path]


@dataclass
class Kubectl:
    """One kubectl, with a home directory of its own, against one server."""

    program: str
    kubeconfig: Path
    home: Path

    def __call__(
        self, *arguments: str, input: str | None = None, status: int = 0, environment: dict[str, str] | None = None
    ) -> str:
        """What it prints, both outputs together; AssertionError if it ends with another status than ``status``."""
        with self.start(*arguments, environment=environment) as process:
            try:
                output, _ = process.communicate(input, timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise AssertionError(f"kubectl {arguments} did not end: {process.communicate()[0]}") from None
        assert process.returncode == status, f"kubectl {' '.join(arguments)}: {process.returncode}\n{output}"
        return output

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start it, and leave the rest to the caller."""
        return subprocess.Popen(
            [self.program, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "KUBECONFIG": str(self.kubeconfig),
                "TZ": "UTC",
                **(environment or {}),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition that becomes true in another thread."""
    event = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        event.wait(0.02)
    raise AssertionError("the condition was not met in time")
