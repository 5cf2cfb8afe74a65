"""The two services behind the sidecar: they greet with their version, and v2 fails every third request."""

from __future__ import annotations

from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Thread


class Service(ThreadingHTTPServer):
    """One service, in threads of its own from ``start`` to ``stop``. Raises OSError when the port is taken.

    ``fail_every`` makes every n-th request a 503; 0 for none.
    """

    daemon_threads = True
    block_on_close = False  # connections that the sidecar keeps open do not hold up the end
    request_queue_size = 128

    def __init__(self, version: str, port: int, fail_every: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.version = version
        self.fail_every = fail_every
        self.requests = count(1)
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def stop(self) -> None:
        """Serve no more, and give the port back."""
        if self._thread.is_alive():
            self.shutdown()
        self.server_close()

    def answer(self) -> tuple[HTTPStatus, str]:
        """The status and body of the next request."""
        number = next(self.requests)
        if self.fail_every and number % self.fail_every == 0:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"{self.version} is having a bad moment\n"
        return HTTPStatus.OK, f"hello from {self.version}\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # so that the sidecar can keep its connections
    disable_nagle_algorithm = True  # head and body are two writes
    server: Service

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, body = self.server.answer()
        self.send_response(status)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the sidecar's access log tells what passed."""
