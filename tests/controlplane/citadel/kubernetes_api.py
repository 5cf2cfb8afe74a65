"""A Kubernetes API server as far as TokenReview goes: over TLS, it judges tokens as the real one does, and checks who asks."""

from __future__ import annotations

import datetime
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from controlplane.citadel.signers import key_pem, new_root, pem

REVIEWER = "reviewers-own-token"
API_AUDIENCE = "https://kubernetes.default.svc"


def jwt_like(name: str) -> str:
    """A token in the form of a JWT: what is in it is the API server's affair."""
    return f"eyJhbGciOiJSUzI1NiJ9.{name}.signature"


class KubernetesApi:
    """A context manager. ``known`` are tokens: (user name, audiences)."""

    def __init__(self, directory: Path) -> None:
        self.known: dict[str, tuple[str, list[str]]] = {}
        self.asked: list[dict[str, Any]] = []
        self.status = 201
        self.audiences_known = True
        self.padding = 0
        self.in_pieces = False
        root = new_root("kubernetes")
        self.authority = pem(root.root)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        assert root.key is not None
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(root.root.subject)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
            .sign(root.key, hashes.SHA256())
        )
        (directory / "api.pem").write_bytes(pem(certificate) + key_pem(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(directory / "api.pem")
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status, answer = api.review(self.path, dict(self.headers), body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if api.in_pieces:
                    self.wfile.write(content[:60])
                    self.wfile.flush()
                    time.sleep(0.05)  # so that the pieces arrive one by one
                    content = content[60:]
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def review(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, Any]]:
        if headers.get("Authorization") != f"Bearer {REVIEWER}":
            return 403, {"kind": "Status", "code": 403}
        if path != "/apis/authentication.k8s.io/v1/tokenreviews" or headers.get("Content-Type") != "application/json":
            return 404, {"kind": "Status", "code": 404}
        asked = json.loads(body)
        if (asked["apiVersion"], asked["kind"]) != ("authentication.k8s.io/v1", "TokenReview") or set(asked) != {
            "apiVersion", "kind", "spec",
        }:  # fmt: skip
            return 400, {"kind": "Status", "code": 400}
        self.asked.append(asked["spec"])
        if self.status != 201:
            return self.status, {"kind": "Status", "code": self.status}
        return 201, {**asked, "padding": "x" * self.padding, "status": self._status(asked["spec"])}

    def _status(self, spec: dict[str, Any]) -> dict[str, Any]:
        user, audiences = self.known.get(spec["token"], ("", []))
        wanted = spec.get("audiences") or [API_AUDIENCE]
        shared = [one for one in wanted if one in audiences]
        if not user or not shared:
            return {"user": {}, "error": "invalid bearer token"}
        groups = ["system:authenticated"]
        if user.startswith("system:serviceaccount:"):
            groups = ["system:serviceaccounts", f"system:serviceaccounts:{user.split(':')[2]}", *groups]
        status = {"authenticated": True, "user": {"username": user, "uid": "1", "groups": groups}}
        return {**status, "audiences": shared} if self.audiences_known else status

    def kubeconfig(self, path: Path, **user: str) -> Path:
        (path.parent / "kubernetes-ca.pem").write_bytes(self.authority)
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "c", "cluster": {"server": self.url, "certificate-authority": "kubernetes-ca.pem"}},
            ],
            "users": [{"name": "u", "user": user or {"token": REVIEWER}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def __enter__(self) -> KubernetesApi:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)
