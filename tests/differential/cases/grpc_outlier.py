"""How hosts are judged by the gRPC statuses that they send: in heads by outlier detection, in trailers by their counts."""

from __future__ import annotations

from tests.differential.blocks import Message, Site, bootstrap, listener, manager, route
from tests.differential.case import Reply, Table, reply
from tests.differential.cases.grpc_logs import with_trailers

GRPC = ("Content-Type", "application/grpc")
DETECTION = {
    "consecutive_5xx": 1,
    "enforcing_consecutive_5xx": 0,
    "consecutive_gateway_failure": 1,
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_success_rate": 0,
}


def grpc_outlier(site: Site) -> Message:
    judged = {**with_trailers(site, "a"), "outlier_detection": DETECTION}
    return bootstrap(site, [listener(site, "http", manager(site, [route("/")]))], [judged])


BOOTSTRAPS = {"grpc-outlier": grpc_outlier}

table = Table("grpc-outlier", "grpc-outlier")
CASES = table.cases


def in_head(status: str, code: int = 200) -> Reply:
    return reply(code, b"", [("content-type", "application/grpc"), ("grpc-status", status)])


def in_trailers(status: str, code: int = 200) -> Reply:
    answer = [("content-type", "application/grpc")]
    return reply(code, headers=answer, chunks=[b"\0\0\0\0\1x"], trailers=[("grpc-status", status)])


def add(name: str, answer: Reply, *, call: bool = True) -> None:
    """One request, and then what was counted of its host."""
    table.get(name, headers=[GRPC] if call else [], method="POST", upstream=answer)
    table.get(f"{name}-detected", "/stats?filter=cluster.a.outlier_detection.ejections_detected", listener="admin",
              access_log=False)  # fmt: skip
    table.get(f"{name}-counted", "/clusters?filter=a", listener="admin", access_log=False)


for _status in (*map(str, range(17)), "20", "x"):
    add(f"head-{_status}", in_head(_status))
for _status in ("0", "5", "2", "14", "x"):
    add(f"trailers-{_status}", in_trailers(_status))
add("head-14-not-a-call", in_head("14"), call=False)
add("trailers-14-not-a-call", in_trailers("14"), call=False)
add("head-0-of-503", in_head("0", 503))
add("head-14-of-500", in_head("14", 500))
add("trailers-0-of-500", in_trailers("0", 500))
add("nothing-of-503", reply(503))
