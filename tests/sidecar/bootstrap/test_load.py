from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sidecar.bootstrap.load import load_bootstrap
from sidecar.config.extensions import message_class
from sidecar.config.problems import ConfigurationError
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.sidecar.bootstrap.bootstraps import BAD, GOOD, STRICTER, cluster


def refused(path: Path | None, config_yaml: str | None = None) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_bootstrap(path, config_yaml=config_yaml)[1].raise_problems()
    return caught.value


def written(directory: Path, text: str) -> Path:
    path = directory / "envoy.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", GOOD)
def test_good_bootstraps_are_loaded(name: str, tmp_path: Path) -> None:
    root, context = load_bootstrap(written(tmp_path, GOOD[name]))
    assert context.problems == []
    assert root.type_name == "envoy.config.bootstrap.v3.Bootstrap"
    assert root.path == ""


@pytest.mark.parametrize("name", [*BAD, *STRICTER])
def test_bad_bootstraps_are_refused_once_and_at_the_place(name: str, tmp_path: Path) -> None:
    text, path = (BAD | STRICTER)[name]
    (problem,) = refused(written(tmp_path, text)).problems
    assert problem.path == path
    assert problem.file == str(tmp_path / "envoy.yaml")
    assert problem.line > 0


@pytest.mark.parametrize("name", [*GOOD, *BAD, *STRICTER])
def test_envoy_says_the_same(name: str, tmp_path: Path) -> None:
    try:
        envoy = envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(f"needs envoy: {error}")
    text = GOOD.get(name) or (BAD | STRICTER).get(name, ("", ""))[0]
    path = written(tmp_path, text)
    command = [envoy, "--mode", "validate", "--use-dynamic-base-id", "--log-level", "error", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0) == (name not in BAD), done.stderr


def test_problems_from_the_text_and_from_constraints_come_together(tmp_path: Path) -> None:
    text = "node:\n  idd: a\nstatic_resources:\n  clusters:\n  - connect_timeout: 0s\n"
    assert str(refused(written(tmp_path, text))).splitlines() == [
        f"{tmp_path}/envoy.yaml:2: node.idd: is not a field of envoy.config.core.v3.Node; did you mean 'id'?",
        f"{tmp_path}/envoy.yaml:5: static_resources.clusters[0].connect_timeout: must be greater than 0s",
        f"{tmp_path}/envoy.yaml:5: static_resources.clusters[0].name: is required; set it",
    ]


def test_the_overlay_is_merged_over_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "node: {id: a, cluster: c}\n" + cluster(""))
    root, context = load_bootstrap(path, config_yaml="node: {id: b}\nstatic_resources: {clusters: [{name: z}]}")
    context.raise_problems()
    node, static = root.child("node"), root.child("static_resources")
    assert node is not None and static is not None
    assert (node.get("id"), node.get("cluster")) == ("b", "c")
    assert [one.get("name") for one in static.children("clusters")] == ["a", "z"]


def test_problems_in_the_overlay_are_told_as_such(tmp_path: Path) -> None:
    overlay = "\nstatic_resources:\n  clusters:\n  - connect_timeout: 1s\n"
    (problem,) = refused(written(tmp_path, cluster("")), overlay).problems
    assert str(problem) == "--config-yaml:4: static_resources.clusters[1].name: is required; set it"


def test_the_overlay_alone_is_enough() -> None:
    root, context = load_bootstrap(config_yaml="node: {id: a}")
    context.raise_problems()
    assert root.has("node")


def test_a_dict_a_message_and_a_serialised_message(tmp_path: Path) -> None:
    message = message_class("envoy.config.bootstrap.v3.Bootstrap")(node={"id": "a"})
    path = tmp_path / "bootstrap.pb"
    path.write_bytes(message.SerializeToString())
    configs: list[Any] = [{"node": {"id": "a"}}, message, path, str(path)]
    for config in configs:
        root, context = load_bootstrap(config)
        context.raise_problems()
        assert root.message == message
    assert load_bootstrap(message)[0].message is not message


def test_json(tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    path.write_text('{\n\t"node": {"id": "a"}\n}')
    root, context = load_bootstrap(path)
    context.raise_problems()
    assert root.has("node")


def test_problems_of_a_dict_or_message_have_paths(tmp_path: Path) -> None:
    message = message_class("envoy.config.bootstrap.v3.Bootstrap")(static_resources={"clusters": [{}]})
    configs: list[Any] = [{"static_resources": {"clusters": [{}]}}, message]
    for config in configs:
        with pytest.raises(
            ConfigurationError, match=r"^configuration: static_resources.clusters\[0\].name: is required"
        ):
            load_bootstrap(config)[1].raise_problems()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "there is no such file" in str(refused(tmp_path / "missing.yaml"))
    assert "is a directory" in str(refused(tmp_path))
    broken = tmp_path / "broken.pb"
    broken.write_bytes(b"\xff")
    assert "does not hold a serialised" in str(refused(broken))
    assert "pass --config FILE" in str(refused(None))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = written(tmp_path, "node: {}")
    path.chmod(0)
    assert "cannot be read" in str(refused(path))


def test_another_message_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="expected a"):
        load_bootstrap(message_class("envoy.config.core.v3.Node")())
