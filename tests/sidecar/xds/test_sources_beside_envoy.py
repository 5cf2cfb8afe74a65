"""Streams of single types, REST and files: real Envoy and our sidecar ask the same and count the same."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from sidecar.xds.resource_types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER
from tests.differential.envoy_binary import EnvoyUnavailableError
from tests.differential.proxies import ENVOY, SIDECAR, FreePorts, Proxy, start
from tests.sidecar.bootstraps import address, cluster
from tests.sidecar.pool.asking import over_http2
from tests.sidecar.xds.resources import assignment, eds_cluster
from tests.sidecar.xds.server import packed
from tests.sidecar.xds.test_rest import rest
from tests.sidecar.xds.world import World

_STATISTICS = re.compile(
    r"(?:cluster_manager\.cds|listener_manager\.lds|cluster\.a|control_plane)\."
    r"(?:control_plane\.\w+|update_(?:attempt|success|failure|rejected)|version|version_text|init_fetch_timeout): .*"
)


async def statistics(proxy: Proxy) -> list[str]:
    """What is counted of subscriptions, but for times."""
    _, _, text = await asyncio.to_thread(proxy.admin, "/stats")
    return _STATISTICS.findall(text)


async def counted(proxy: Proxy, *lines: str) -> list[str]:
    """The statistics, when these are among them."""
    async with asyncio.timeout(15):
        while not set(lines) <= set(await statistics(proxy)):
            await asyncio.sleep(0.02)
    return await statistics(proxy)  # the page before may have begun before it was so


@asynccontextmanager
async def running(kind: str, directory: Path, server: dict[str, Any], **dynamic: Any) -> AsyncIterator[Proxy]:
    """A proxy whose management server is the cluster ``server``."""
    ports = {"admin": FreePorts().take()}
    bootstrap = {
        "node": {"id": "it", "cluster": "us", "metadata": {"NAMESPACE": "shop", "N": 1}},
        "admin": {"address": address(ports["admin"])},
        "static_resources": {"clusters": [server]},
        "dynamic_resources": dynamic,
    }
    try:
        proxy = await asyncio.to_thread(start, kind, bootstrap, ports, directory)
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))
    try:
        yield proxy
    finally:
        await asyncio.to_thread(proxy.stop)


def over(api_type: str) -> dict[str, Any]:
    api = {
        "api_type": api_type,
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
    }
    return {"resource_api_version": "V3", "api_config_source": api}


@pytest.mark.parametrize("api_type", ["GRPC", "DELTA_GRPC"])
async def test_streams_of_single_types(api_type: str, tmp_path: Path) -> None:
    async def run(kind: str) -> tuple[list[str], list[str]]:
        source = over(api_type)
        resources = {
            CLUSTER: {"a": eds_cluster("a", eds_cluster_config={"eds_config": source})},
            CLUSTER_LOAD_ASSIGNMENT: {"a": assignment("a", 80)},
            LISTENER: dict[str, Any](),
        }
        async with World(resources) as made:
            server = over_http2(cluster("xds", made.port))
            async with running(kind, tmp_path / kind, server, cds_config=source, lds_config=source) as proxy:
                await made.settled(6)
                made.conversation.cut()
                await made.settled(12)
                found = await counted(
                    proxy, *(f"{one}.update_success: 2" for one in ("cluster.a", "cluster_manager.cds"))
                )
                lines = [
                    f"{made.conversations[asked.stream - 1].path}{asked.line().partition(' ')[2]}"
                    for asked in made.asked
                ]
                return sorted(lines), found

    envoys, ours = await run(ENVOY), await run(SIDECAR)
    assert ours == envoys


async def test_rest(tmp_path: Path) -> None:
    document = MessageToDict(packed(eds_cluster("a", type="STATIC", eds_cluster_config=None)), True)
    good = json.dumps({"version_info": "1", "resources": [document]})

    async def run(kind: str) -> tuple[list[Any], list[str]]:
        answers = [(200, good), (503, ""), (200, "{"), (304, "")]
        async with rest(lambda body: answers.pop(0) if len(answers) > 1 else answers[0]) as (port, seen):
            api = {
                "api_type": "REST",
                "transport_api_version": "V3",
                "cluster_names": ["xds"],
                "refresh_delay": "0.01s",
            }
            source = {"resource_api_version": "V3", "api_config_source": api}
            async with running(kind, tmp_path / kind, cluster("xds", port), cds_config=source) as proxy:
                async with asyncio.timeout(30):
                    while len(seen) < 5:
                        await asyncio.sleep(0.02)
                found = await statistics(proxy)
        for _, _, body in seen:
            node = body.pop("node")
            assert (node["id"], node["metadata"]) == ("it", {"NAMESPACE": "shop", "N": 1})
        return seen[:5], [line for line in found if "update_attempt" not in line]

    envoys, ours = await run(ENVOY), await run(SIDECAR)
    assert ours == envoys


async def test_files(tmp_path: Path) -> None:
    def text(version: str, *names: str) -> str:
        clusters = [
            MessageToDict(packed(eds_cluster(name, type="STATIC", eds_cluster_config=None)), True) for name in names
        ]
        return json.dumps({"version_info": version, "resources": clusters})

    async def run(kind: str) -> list[list[str]]:
        directory = tmp_path / f"{kind}-files"
        directory.mkdir()
        path = directory / "cds.json"
        path.write_text(text("1", "a"))

        def move(content: str) -> None:
            other = directory / "next"
            other.write_text(content)
            os.replace(other, path)

        source = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
        async with running(kind, tmp_path / kind, cluster("xds", 1), cds_config=source) as proxy:
            steps = [await counted(proxy, "cluster_manager.cds.update_success: 1")]
            move(text("2", "a", "b"))
            steps.append(await counted(proxy, "cluster_manager.cds.update_success: 2"))
            move("{")
            steps.append(await counted(proxy, "cluster_manager.cds.update_failure: 1"))
            bad = json.loads(text("3", "a", "c"))
            bad["resources"][1]["type"] = "EDS"
            move(json.dumps(bad))
            steps.append(await counted(proxy, "cluster_manager.cds.update_rejected: 1"))
            move(text("4", "a"))
            steps.append(await counted(proxy, "cluster_manager.cds.update_success: 3"))
            return steps

    envoys, ours = await run(ENVOY), await run(SIDECAR)
    assert ours == envoys
