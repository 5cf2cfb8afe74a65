"""A gRPC client without a proxy, in a process of its own: for each line `TARGET COUNT [KEY=VALUE ...]` it calls so often
with that metadata, and says who answered how often, as JSON; failures count under their status. `serve PORT` makes it a
server, too, which has its listener over xDS and answers `served`, and to whom where a client has shown a certificate.
Both have their TLS over xDS; where that says nothing, they speak plain text.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.experimental

_CREDENTIALS = grpc.xds_channel_credentials(grpc.experimental.insecure_channel_credentials())


class Served(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every method answers."""

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, request: bytes, context: Any) -> bytes:
        names = context.auth_context().get("x509_subject_alternative_name", ())
        return b" to ".join((b"served", *names))


def main() -> None:
    channels: dict[str, grpc.Channel] = {}
    servers = []
    for line in sys.stdin:
        target, count, *pairs = line.split()
        if target == "serve":
            server = grpc.server(ThreadPoolExecutor(2), xds=True)
            server.add_generic_rpc_handlers((Served(),))
            credentials = grpc.xds_server_credentials(grpc.insecure_server_credentials())
            server.add_secure_port(f"127.0.0.1:{count}", credentials)
            server.start()
            servers.append(server)
            print("{}", flush=True)
            continue
        if target not in channels:
            channels[target] = grpc.secure_channel(target, _CREDENTIALS)
        call = channels[target].unary_unary("/test.Who/Are")
        metadata = [tuple(pair.split("=", 1)) for pair in pairs]
        answers: Counter[str] = Counter()
        for _ in range(int(count)):
            try:
                answers[call(b"", timeout=5, metadata=metadata).decode()] += 1
            except grpc.RpcError as error:
                answers[f"{error.code().name}: {error.details()}"] += 1
        print(json.dumps(answers), flush=True)


if __name__ == "__main__":
    main()
