"""The control plane's REST interface, as commands use it."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from controlplane.cli.kubeconfig import Access
from controlplane.model.kinds import Kind

_LONGEST_ANSWER: Final = 1 << 28
_LONGEST_OF_ANYBODY: Final = 1 << 20
"""Bytes of an answer that are read."""


class ApiError(click.ClickException):
    """The control plane refused, or cannot be reached. ``status`` is HTTP's, 0 if there was no answer."""

    def __init__(self, status: int, message: str, causes: list[Mapping[str, Any]] | None = None) -> None:
        lines = [message, *(f"  {cause.get('field', '')}: {cause.get('message', '')}" for cause in causes or ())]
        super().__init__("\n".join(lines))
        self.status = status


class Api:
    """Requests to one control plane, over one connection that is made anew when it has ended."""

    def __init__(self, access: Access, timeout: float = 30.0) -> None:
        self.access = access
        address = urlsplit(access.server)
        self._longest = _LONGEST_ANSWER
        self._context = context = ssl.create_default_context(cadata=access.authority or None)
        self._connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, context=context, timeout=timeout
        )

    @classmethod
    def to_anybody(cls, server: str) -> Api:
        """Whoever answers at an address: nothing that is said there can be believed yet."""
        api = cls(Access(server, "", ""))
        api._longest = _LONGEST_OF_ANYBODY
        api._context.check_hostname = False
        api._context.verify_mode = ssl.CERT_NONE
        return api

    def show_certificate(self, chain: Path, key: Path) -> None:
        """Say who asks by a certificate. Raises ApiError if there is none."""
        try:
            self._context.load_cert_chain(chain, key)
        except OSError as error:
            raise ApiError(0, f"{chain}, {key}: {error.strerror or error}") from error

    def request(self, method: str, path: str, body: Any = None, media_type: str = "application/json") -> Any:
        """The JSON object that is answered; raises ApiError with Kubernetes' Status in words."""
        headers = {"accept": "application/json"}
        if self.access.token:
            headers["authorization"] = f"Bearer {self.access.token}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["content-type"] = media_type
        if method == "POST":  # what may not be sent twice needs a connection that has not been closed meanwhile
            self._connection.close()
        for attempt in (1, 2):
            try:
                self._connection.request(method, path, data, headers)
                response = self._connection.getresponse()
                text = response.read(self._longest + 1)
                break
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
                self._connection.close()
                if attempt == 2 or method == "POST":
                    raise ApiError(0, f"{self.access.server} closed the connection") from error
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise ApiError(0, f"cannot reach the control plane at {self.access.server}: {error}") from error
        if len(text) > self._longest:
            self._connection.close()
            raise ApiError(0, f"{self.access.server} answers with more than {self._longest} bytes")
        try:
            answer = json.loads(text)
        except ValueError:
            answer = {"message": text.decode("utf-8", "replace")}
        if response.status >= 400:
            details = answer.get("details") or {}
            raise ApiError(response.status, answer.get("message") or str(response.status), details.get("causes"))
        return answer

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    # resources

    def get(self, kind: Kind, namespace: str, name: str) -> Any | None:
        """A resource, None if there is none."""
        try:
            return self.request("GET", f"{collection(kind, namespace)}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: Kind, namespace: str = "") -> Iterator[Any]:
        """All resources of a kind, in one namespace or in all."""
        yield from self.request("GET", collection(kind, namespace))["items"]

    def apply(self, kind: Kind, document: Mapping[str, Any]) -> str:
        """Create a resource or make it what the document says: "created", "configured" or "unchanged"."""
        metadata = document["metadata"]
        namespace = metadata.get("namespace", "")
        before = self.get(kind, namespace, metadata["name"])
        if before is None:
            self.request("POST", collection(kind, namespace), document)
            return "created"
        wanted = {**document, "metadata": {**before["metadata"], **metadata}}
        if "status" in before:
            wanted["status"] = before["status"]
        after = self.request("PUT", f"{collection(kind, namespace)}/{metadata['name']}", wanted)
        same = after["metadata"].get("resourceVersion") == before["metadata"].get("resourceVersion")
        return "unchanged" if same else "configured"

    def delete(self, kind: Kind, namespace: str, name: str) -> bool:
        """Whether there was such a resource."""
        try:
            self.request("DELETE", f"{collection(kind, namespace)}/{name}")
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True


def collection(kind: Kind, namespace: str) -> str:
    """The path of a kind's resources."""
    start = f"/apis/{kind.group}/{kind.versions[0]}" if kind.group else f"/api/{kind.versions[0]}"
    return (
        f"{start}/namespaces/{namespace}/{kind.plural}" if kind.namespaced and namespace else f"{start}/{kind.plural}"
    )
