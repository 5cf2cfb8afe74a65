"""The header_mutation filter, with settings of the filter, the virtual host and the route."""

from __future__ import annotations

from tests.differential.blocks import (
    Message,
    Site,
    bootstrap,
    http_filter,
    listener,
    manager,
    per_filter,
    route,
    say,
    to,
    virtual_host,
)
from tests.differential.case import Close, ReadBody, Reply, Table, reply


def header_mutation(site: Site) -> Message:
    def append(key: str, value: str, action: str = "APPEND_IF_EXISTS_OR_ADD") -> Message:
        return {"append": {"header": {"key": key, "value": value}, "append_action": action}}

    def mutations(level: str) -> Message:
        both = [
            {"remove": "x-removed"},
            append("x-appended", level),
            append("x-added", level, "ADD_IF_ABSENT"),
            append("x-set", level, "OVERWRITE_IF_EXISTS_OR_ADD"),
            append("x-only", level, "OVERWRITE_IF_EXISTS"),
        ]
        return {
            "mutations": {
                "request_mutations": [*both, append("x-path", "%REQ(:PATH)%")],
                "response_mutations": [*both, append("x-code", "%RESPONSE_CODE%")],
            }
        }

    def own(level: str) -> Message:
        return {"typed_per_filter_config": per_filter("header_mutation", "HeaderMutationPerRoute", **mutations(level))}

    filters = [http_filter("header_mutation", "HeaderMutation", **mutations("filter"))]
    specific = [
        http_filter(
            "header_mutation", "HeaderMutation", **mutations("filter"), most_specific_header_mutations_wins=True
        )
    ]
    routes = [route("/own", to("a"), **own("route")), route("/said", say(200, "said")), route("/")]
    hosts = [virtual_host("host", ["host.test"], routes, **own("host")), virtual_host("all", ["*"], routes)]
    return bootstrap(
        site,
        [
            listener(site, "http", manager(site, hosts=hosts, filters=filters)),
            listener(site, "specific", manager(site, hosts=hosts, filters=specific)),
        ],
    )


BOOTSTRAPS = {"header-mutation": header_mutation}

table = Table("header-mutation", "header-mutation")
CASES = table.cases
GIVEN = [("X-Removed", "1"), ("X-Appended", "given"), ("X-Added", "given"), ("X-Set", "given"), ("X-Only", "given")]
for _listener in ("http", "specific"):
    for _host in ("a.test", "host.test"):
        for _path in ("/own", "/said", "/"):
            table.get(
                f"{_path}-{_host}-{_listener}",
                _path,
                GIVEN,
                host=_host,
                listener=_listener,
                upstream=reply(headers=GIVEN),
            )
table.get("nothing-given", "/own")
table.get("local-reply", "/", upstream=Reply((ReadBody(), Close())))
