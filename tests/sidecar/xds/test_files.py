"""Resources from files: read at once, again when a file is moved into place, and the last good ones stay."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from envoy.config.cluster.v3.cluster_pb2 import Cluster

from sidecar.config.config_source import ConfigSource, PathConfigSource
from sidecar.telemetry.groups.server import SubscriptionStats
from sidecar.xds.resource_types import CLUSTER
from tests.sidecar.tls_bootstraps import until
from tests.sidecar.xds.server import response
from tests.sidecar.xds.subjects import Watcher, discovering, subscribe


def text(version: str, *names: str) -> str:
    resources: list[Any] = [{"@type": CLUSTER, "name": name} for name in names]
    return json.dumps({"version_info": version, "resources": resources})


def move_into(path: Path, content: str | bytes) -> None:
    other = path.with_name("next")
    other.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(other, path)


async def test_a_file_is_read_and_read_again_when_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cds.yaml"
    path.write_text(text("1", "a", "b"))
    async with discovering(1) as discovery:
        watcher, stats = Watcher(), SubscriptionStats()
        source = ConfigSource(PathConfigSource(str(path)))
        subscription = subscribe(discovery, CLUSTER, None, watcher, source, stats)
        await until(lambda: watcher.world == {"a": "1", "b": "1"})
        move_into(path, text("2", "b"))
        await until(lambda: watcher.world == {"b": "2"})
        assert (stats.update_attempt, stats.update_success, stats.version_text) == (2, 2, "2")

        move_into(path, "resources: [")
        await until(lambda: stats.update_failure == 1)
        move_into(path, text("3", "b", "c").replace('"name": "c"', '"nome": "c"'))
        await until(lambda: stats.update_rejected == 1)
        assert watcher.world == {"b": "3"}
        move_into(path, response(CLUSTER, "4", Cluster(name="d")).SerializeToString())
        await until(lambda: stats.update_failure == 2)  # protobuf in a file that is called .yaml
        assert watcher.world == {"b": "3"}

        subscription.close()
        move_into(path, text("5", "e"))
        other = Watcher()
        subscribe(discovery, CLUSTER, None, other, source)
        await until(lambda: other.world == {"e": "5"})
        assert watcher.world == {"b": "3"}


async def test_only_moves_count_and_with_a_watched_directory_any_of_them(tmp_path: Path) -> None:
    real, watched = tmp_path / "1", tmp_path / "watched"
    real.mkdir()
    watched.mkdir()
    (real / "cds.pb").write_bytes(response(CLUSTER, "1", Cluster(name="a")).SerializeToString())
    (watched / "current").symlink_to(real)
    async with discovering(1) as discovery:
        watcher = Watcher()
        source = ConfigSource(PathConfigSource(str(watched / "current" / "cds.pb"), str(watched)))
        subscribe(discovery, CLUSTER, ["a"], watcher, source)
        await until(lambda: watcher.world == {"a": "1"})
        other = tmp_path / "2"
        other.mkdir()
        answer = response(CLUSTER, "2", Cluster(name="a"), Cluster(name="b"))
        (other / "cds.pb").write_bytes(answer.SerializeToString())
        (watched / "next").symlink_to(other)
        assert watcher.world == {"a": "1"}
        os.replace(watched / "next", watched / "current")
        await until(lambda: watcher.world == {"a": "2"})


async def test_who_waits_for_a_file_that_is_broken_goes_on_without(tmp_path: Path) -> None:
    path = tmp_path / "cds.yaml"
    path.write_text("%")
    async with discovering(1) as discovery:
        watcher = Watcher()
        subscribe(discovery, CLUSTER, None, watcher, ConfigSource(PathConfigSource(str(path))))
        await until(lambda: watcher.heard == ["unavailable"])
        move_into(path, text("1", "a"))
        await until(lambda: watcher.world == {"a": "1"})
