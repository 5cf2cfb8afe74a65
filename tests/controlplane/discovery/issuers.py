"""A server of TLS that says where issuers have their keys, and has them."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.controlplane.pilot.security.tokens import key_set
from tests.sidecar.transport.certificates import Authority

Answer = Callable[[http.server.BaseHTTPRequestHandler, str], None]


def say(handler: http.server.BaseHTTPRequestHandler, body: bytes | object, status: int = 200, **headers: str) -> None:
    """Answer with bytes, or with JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("content-length", str(len(data)))
    handler.end_headers()
    with contextlib.suppress(OSError):
        handler.wfile.write(data)


class Issuers:
    """`address` is where it is, `answer` what it does for a question (its path), `asked` the paths of all questions."""

    def __init__(self, directory: Path) -> None:
        authority = Authority()
        self.roots = directory / "issuer-roots.pem"
        self.roots.write_bytes(authority.pem)
        server = authority.issue(names=["127.0.0.1"])
        self.asked: list[str] = []
        self.answer: Answer = lambda handler, path: say(handler, self.document(path))
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                if self.path.endswith("/keys"):
                    say(self, key_set("one").encode())
                else:
                    outer.answer(self, self.path)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*server.write(directory, "issuer"))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"https://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def context(self) -> ssl.SSLContext:
        """What verifies it."""
        return ssl.create_default_context(cafile=str(self.roots))

    def document(self, path: str, **fields: Any) -> dict[str, Any]:
        """What an issuer below that path should say of itself."""
        issuer = self.address + path.removesuffix("/.well-known/openid-configuration")
        return {"issuer": issuer, "jwks_uri": f"{issuer}/keys", **fields}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def issuers(directory: Path) -> Iterator[Issuers]:
    """A server for a test."""
    made = Issuers(directory)
    try:
        yield made
    finally:
        made.close()
