"""What would become of a request is what becomes of it, and the words name the condition that decides."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.core.explanation import ENDS, PASSED_OVER, TAKEN, Step
from sidecar.core.question import question_of
from sidecar.server import Server
from tests.sidecar.explain_scene import address, cluster, manager, policy, rbac, typed

_ROUTES: list[dict[str, Any]] = [
    {
        "name": "by-user",
        "match": {"prefix": "/a", "headers": [{"name": "user", "string_match": {"exact": "ada"}}]},
        "route": {"cluster": "b"},
        "metadata": {"filter_metadata": {"istio": {"config": "/apis/x/reviews"}}},
    },
    {"name": "moved", "match": {"path": "/old"}, "redirect": {"path_redirect": "/new"}},
    {"name": "said", "match": {"path": "/said"}, "direct_response": {"status": 418}},
    {"name": "empty", "match": {"path": "/empty"}, "route": {"cluster": "nobody"}},
    {
        "name": "split",
        "match": {"prefix": "/split"},
        "route": {"weighted_clusters": {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 3}]}},
    },
    {"name": "rest", "match": {"prefix": "/a"}, "route": {"cluster": "a", "prefix_rewrite": "/z"}},
]
_READERS = policy({"header": {"name": ":method", "string_match": {"exact": "GET"}}})
_BAD = policy({"and_rules": {"rules": [{"any": True}, {"url_path": {"path": {"prefix": "/a/bad"}}}]}})


def _document(**listener: Any) -> dict[str, Any]:
    chain = {"name": "plain", "filters": [manager(_ROUTES, [rbac({"bad": _BAD}, "DENY"), rbac({"readers": _READERS})])]}
    return {
        "static_resources": {
            "listeners": [{"name": "in", **address(0), "filter_chains": [chain], **listener}],
            "clusters": [cluster("a", 1), cluster("b", 2), cluster("nobody")],
        }
    }


def _explained(document: Any, url: str, method: str = "GET", headers: Any = (), **who: Any) -> list[Step]:
    async def explain() -> list[Step]:
        return await Server(document).explain(question_of(method, url, headers, **who))

    return asyncio.run(explain())


@pytest.mark.parametrize(
    ("method", "path", "headers", "verdict", "said"),
    [
        ("GET", "/a", [], "the request goes to cluster 'a'",
         "route 0 'by-user' does not match: header user is missing and must be 'ada'"),
        ("GET", "/a", ["user:ada"], "the request goes to cluster 'b'", "route 0 'by-user' matches"),
        ("GET", "/a/../a/x", [], "the request goes to cluster 'a'", "the path becomes '/z/../a/x'"),
        ("POST", "/a", [], "403 'RBAC: access denied' (rbac_access_denied_matched_policy[none])",
         "    policy 'readers' does not fit: permission header :method exact 'GET' is not met: it is 'POST'"),
        ("GET", "/a/bad/x", [], "403 'RBAC: access denied' (rbac_access_denied_matched_policy[bad])",
         "http filter envoy.filters.http.rbac: denies: policy 'bad' fits, and DENY rules deny what fits"),
        ("GET", "/nothing", [], "404: no route (NR)", "no route matches"),
        ("GET", "/old", [], "route 'moved' redirects: 301, location http://127.0.0.1:{port}/new", "route 1 'moved' matches"),
        ("GET", "/said", [], "route 'said' answers itself: 418", "route 2 'said' matches"),
        ("GET", "/empty", [], "503: no healthy upstream (UH)",
         "cluster 'nobody' (STATIC, ROUND_ROBIN): has no endpoints: no healthy upstream"),
    ],
)  # fmt: skip
def test_what_is_told_is_what_happens(method: str, path: str, headers: list[str], verdict: str, said: str) -> None:
    """Asked of a sidecar that runs, which is then asked for real: statuses agree."""

    async def ask() -> tuple[list[Step], int, int]:
        async with Server(_document()) as server:
            host, port = server.address("in")
            assert server.stack is not None
            steps = server.stack.explain(question_of(method, f"http://{host}:{port}{path}", headers))
            (connection_manager,) = server.stack.managers
            assert connection_manager.stats.downstream_rq_total == 0  # nothing was counted
            reader, writer = await asyncio.open_connection(host, port)
            fields = "".join(f"{header}\r\n" for header in headers)
            head = f"{method} {path} HTTP/1.1\r\nhost: {host}:{port}\r\n{fields}content-length: 0\r\n\r\n"
            writer.write(head.encode())
            status = int((await reader.readuntil(b"\r\n"))[9:12])
            writer.close()
            return steps, status, port

    steps, status, port = asyncio.run(ask())
    text = steps[-1].text.removeprefix("verdict: ")
    assert text == verdict.format(port=port)
    lines = [line for step in steps for line in (step.text, *(f"    {detail}" for detail in step.details))]
    assert said in lines, "\n".join(lines)
    told = {"the": 503, "route": 301 if "redirects" in text else 418}  # clusters lead to ports where nobody listens
    assert status == told.get(text.split()[0], int(text[:3]) if text[:3].isdecimal() else 0)


def test_asking_counts_nothing_and_throws_no_dice() -> None:
    options = {"normalize_path": True, "path_with_escaped_slashes_action": "UNESCAPE_AND_REDIRECT"}
    chain = {"filters": [manager(_ROUTES, **options)]}

    async def ask() -> None:
        async with Server(_document(filter_chains=[chain])) as server:
            stack = server.stack
            assert stack is not None
            (connection_manager,) = stack.managers
            state = stack.worker.random.getstate()
            for path, status in (("/a%2fb", "307"), ("/%00", "400"), ("/a", "403")):
                headers = ["upgrade:x", "connection:upgrade"]
                steps = stack.explain(
                    question_of("GET", f"http://{':'.join(map(str, server.address('in')))}{path}", headers)
                )
                assert steps[-1].text.split()[1] == status
            assert stack.worker.random.getstate() == state
            for name in ("failed_path_normalization", "redirected_with_normalized_path", "ws_on_non_ws_route"):
                assert getattr(connection_manager.stats, f"downstream_rq_{name}") == 0

    asyncio.run(ask())


def test_an_upgrade_is_told_by_the_filters_that_it_meets() -> None:
    upgrades = [{"upgrade_type": "websocket", "filters": [rbac({"bad": _BAD}, "DENY"), _ROUTER]}]
    document = _document(filter_chains=[{"filters": [manager(_ROUTES, upgrade_configs=upgrades)]}])
    headers = ["connection:upgrade", "upgrade:websocket"]
    assert _explained(document, "http://in/a", headers=headers)[-1].text == "verdict: the request goes to cluster 'a'"
    assert _explained(document, "http://in/a/bad", headers=headers)[-1].text.startswith("verdict: 403")
    assert _explained(document, "http://in/a/bad")[-1].outcome == TAKEN


@pytest.mark.parametrize(("method", "header"), [("a b", "a:b"), ("", "a:b"), ("GET", "a b:c"), ("GET", "a:b\nc")])
def test_what_no_request_can_be_is_refused(method: str, header: str) -> None:
    with pytest.raises(ValueError, match="is no "):
        question_of(method, "http://in/", [header])


def test_the_metadata_of_routes_says_what_they_are_made_from() -> None:
    steps = _explained(_document(), "http://in/a", headers=["user:ada"])
    (route,) = [step for step in steps if step.stage == "route" and step.outcome == TAKEN]
    assert route.metadata == {"istio": {"config": "/apis/x/reviews"}}


def test_weights_are_told_and_the_dice_are_thrown() -> None:
    found = {_explained(_document(), "http://in/split")[-1].text for _ in range(40)}
    assert found == {"verdict: the request goes to cluster 'a'", "verdict: the request goes to cluster 'b'"}
    (action,) = [step for step in _explained(_document(), "http://in/split") if step.stage == "route action"]
    assert action.details[0].startswith("one of several by weight: 1 of 4 to 'a', 3 of 4 to 'b'")


_ROUTER = typed("envoy.filters.http.router", "http.router.v3.Router")
_TLS_INSPECTOR = typed("envoy.filters.listener.tls_inspector", "listener.tls_inspector.v3.TlsInspector")
_TCP = typed("envoy.filters.network.tcp_proxy", "network.tcp_proxy.v3.TcpProxy", stat_prefix="tcp", cluster="b")
_CHAINS = [
    {"name": "passed-on", "filter_chain_match": {"transport_protocol": "tls", "server_names": ["a.test"]}, "filters": [_TCP]},
    {"name": "port", "filter_chain_match": {"destination_port": 9}, "filters": [_TCP]},
    {"name": "near", "filter_chain_match": {"transport_protocol": "raw_buffer", "source_type": "SAME_IP_OR_LOOPBACK"},
     "filters": [manager(_ROUTES)]},
    {"name": "far", "filter_chain_match": {"transport_protocol": "raw_buffer",
                                           "source_prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]},
     "filters": [typed("envoy.filters.network.rbac", "network.rbac.v3.RBAC", stat_prefix="net", rules={
         "action": "DENY",
         "policies": {"one": policy(principal={"direct_remote_ip": {"address_prefix": "10.0.0.1", "prefix_len": 32}})},
     }), _TCP]},
]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "who", "chain", "verdict"),
    [
        ("http://in/a", {}, "near", "the request goes to cluster 'a'"),
        ("https://a.test/", {}, "passed-on", "the connection goes to cluster 'b'"),
        ("https://b.test/", {}, "", "the connection is closed: no filter chain takes it"),
        ("http://in/a", {"source": "10.0.0.2"}, "far", "the connection goes to cluster 'b'"),
        ("http://in/a", {"source": "10.0.0.1"}, "far", "the connection is closed by a network filter"),
        ("http://in/a", {"source": "192.0.2.1"}, "", "the connection is closed: no filter chain takes it"),
    ],
)
def test_the_filter_chain_is_the_one_of_the_lookup(url: str, who: Any, chain: str, verdict: str) -> None:
    document = _document(filter_chains=_CHAINS, listener_filters=[_TLS_INSPECTOR])
    steps = _explained(document, url, to="127.0.0.1:0", **who)
    chains = {step.name: step for step in steps if step.stage == "filter chain"}
    taken = [name for name, step in chains.items() if step.outcome == TAKEN]
    assert taken == ([chain] if chain else [])
    assert steps[-1].text == f"verdict: {verdict}"
    for name, step in chains.items():
        assert step.outcome in (PASSED_OVER, TAKEN) or (name == "" and step.outcome == ENDS)
    if chain != "port":
        assert chains["port"].text == (
            "filter chain 'port': passed over: the destination's port is 0, and it wants destination_port 9"
        )


def test_a_question_that_leads_nowhere_says_what_is_missing() -> None:
    document = _document()
    document["static_resources"]["listeners"].append({**document["static_resources"]["listeners"][0], "name": "other"})
    with pytest.raises(ValueError, match=r"in is no address|in:80 is no address: say with --to"):
        _explained(document, "http://in/a")
    assert (
        _explained(_document(), "http://10.9.9.9:80/a")[-1].text
        == "verdict: nobody listens there: the connection is refused"
    )


def test_the_command(tmp_path: Path) -> None:
    path = tmp_path / "envoy.yaml"
    path.write_text(yaml.safe_dump(_document()))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sidecar", "explain", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    found = run("--config", str(path), "GET", "http://shop/a", "-H", "user: ada")
    assert (found.returncode, found.stdout.splitlines()[-1]) == (0, "verdict: the request goes to cluster 'b'"), (
        found.stderr
    )
    found = run("--config", str(path), "--format", "json", "POST", "http://shop/a")
    assert (found.returncode, json.loads(found.stdout)[-1]["outcome"]) == (3, ENDS)
    for arguments, message in (
        (("--config", str(path), "GET", "shop"), "'shop' is no URL: write http://HOST:PORT/PATH"),
        (("--config", str(tmp_path / "none"), "GET", "http://a/"), "none"),
        (("--config", str(path), "--jwt", str(tmp_path / "t"), "GET", "http://a/"), "--jwt"),
        (("--admin", "127.0.0.1:1", "GET", "http://a/"), "--admin 127.0.0.1:1: "),
    ):
        found = run(*arguments)
        assert found.returncode == 1 and message in found.stderr, (arguments, found)


def test_the_command_asks_a_sidecar_that_runs(tmp_path: Path) -> None:
    async def ask() -> tuple[int, str]:
        document = {**_document(), "admin": address(0)}
        async with Server(document) as server:
            host, port = server.admin_address
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sidecar", "explain", "--admin", f"{host}:{port}", "GET", "http://shop/a",
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            out, _ = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode is not None
            return process.returncode, out.decode()

    status, out = asyncio.run(ask())
    assert (status, out.splitlines()[-1]) == (0, "verdict: the request goes to cluster 'a'")


def test_what_is_discovered_is_asked_of_the_sidecar_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "envoy.yaml"
    source = {"path_config_source": {"path": str(tmp_path / "lds.yaml")}, "resource_api_version": "V3"}
    (tmp_path / "lds.yaml").write_text("resources: []\n")
    document = {
        "node": {"id": "a", "cluster": "b"},
        "admin": address(9901),
        "dynamic_resources": {"lds_config": source},
    }
    path.write_text(yaml.safe_dump(document))
    command = [sys.executable, "-m", "sidecar", "explain", "--config", str(path), "GET", "http://a/"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 1 and "with --admin 127.0.0.1:9901" in found.stderr, found


def test_a_host_that_is_looked_up_is_told_and_nobody_is_asked() -> None:
    names = {"name": "names"}
    routes = [
        {
            "match": {"prefix": "/other"},
            "route": {"cluster": "out"},
            "typed_per_filter_config": {
                "dynamic_forward_proxy": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig",
                    "host_rewrite_literal": "other.invalid:81",
                }
            },
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "out"}},
    ]
    lookup = typed("dynamic_forward_proxy", "http.dynamic_forward_proxy.v3.FilterConfig", dns_cache_config=names)
    out = {
        "name": "out",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {
            "name": "envoy.clusters.dynamic_forward_proxy",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
                "dns_cache_config": names,
            },
        },
    }
    chain = {"name": "plain", "filters": [manager(routes, [lookup])]}
    listeners = [{"name": "in", **address(0), "filter_chains": [chain]}]
    document = {"static_resources": {"listeners": listeners, "clusters": [out]}}

    first, second = (_explained(document, f"http://nobody.invalid/{path}") for path in ("", "other"))
    told = "http filter dynamic_forward_proxy: "
    assert f"{told}'nobody.invalid' is looked up" in [step.text for step in first]
    assert f"{told}'other.invalid:81' is looked up" in [step.text for step in second]
    for steps in (first, second):
        assert steps[-2].text.endswith("the endpoint is the host that the request names; 0 are known")
        assert steps[-1].text == "verdict: the request goes to cluster 'out'"
