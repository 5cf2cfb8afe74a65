"""The overload manager's configuration, good and bad, judged by us and by real Envoy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sidecar.config.overload_manager import (
    ACCEPT_QUEUE,
    ACCEPT_QUEUE_WAIT,
    DOWNSTREAM_CONNECTIONS,
    EVENT_LOOP_LAG,
    FIXED_HEAP,
    INJECTED_RESOURCE,
    LOOP_LAG,
    OverloadAction,
    OverloadManager,
    ResourceMonitor,
    ScaledTimer,
    Trigger,
)
from sidecar.config.problems import ConfigurationError
from tests.differential.envoy_binary import EnvoyUnavailableError, envoy_binary
from tests.sidecar.config.resources import bootstrap, load

Document = dict[str, Any]

MONITORS = "type.googleapis.com/envoy.extensions.resource_monitors."
TYPED_STRUCT = "type.googleapis.com/xds.type.v3.TypedStruct"
INJECTED = "envoy.resource_monitors.injected_resource"
CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"
REFUSE = "envoy.overload_actions.stop_accepting_requests"
REDUCE = "envoy.overload_actions.reduce_timeouts"
RESET = "envoy.overload_actions.reset_high_memory_stream"
ACCEPT_POINT = "envoy.load_shed_points.tcp_listener_accept"


def monitor(kind: str = "injected_resource.v3.InjectedResourceConfig", name: str = INJECTED, **fields: Any) -> Document:
    given = fields or {"filename": "/tmp/pressure"}
    return {"name": name, "typed_config": {"@type": MONITORS + kind, **given}}


def connections(name: str = CONNECTIONS, most: int = 10) -> Document:
    kind = "downstream_connections.v3.DownstreamConnectionsConfig"
    return monitor(kind, name, max_active_downstream_connections=most)


def own(name: str, **value: Any) -> Document:
    typed = {"@type": TYPED_STRUCT, "type_url": f"type.googleapis.com/{name}", "value": value}
    return {"name": name, "typed_config": typed}


def threshold(value: float = 0.9, name: str = INJECTED) -> Document:
    return {"name": name, "threshold": {"value": value}}


def scaled(low: float, high: float, name: str = INJECTED) -> Document:
    return {"name": name, "scaled": {"scaling_threshold": low, "saturation_threshold": high}}


def action(name: str = REFUSE, *triggers: Document, **fields: Any) -> Document:
    return {"name": name, "triggers": list(triggers) or [threshold()], **fields}


def timers(*factors: Document) -> Document:
    kind = "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig"
    return {"@type": kind, "timer_scale_factors": list(factors)}


IDLE = {"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}
STREAMS = {"timer": "HTTP_DOWNSTREAM_STREAM_IDLE", "min_scale": {"value": 50}}
LONGEST = {"timer": "HTTP_DOWNSTREAM_CONNECTION_MAX", "min_scale": {"value": 10}}
BUFFERS = {"minimum_account_to_track_power_of_two": 21}


def manager(*actions: Document, **fields: Any) -> Document:
    document = {"resource_monitors": [monitor()], "actions": list(actions), **fields}
    return bootstrap(overload_manager={name: value for name, value in document.items() if value})


GOOD: dict[str, Document] = {
    "a monitor alone": manager(),
    "a threshold": manager(action()),
    "a threshold of nothing": manager(action(REFUSE, threshold(0))),
    "a monitor with a name of its own": manager(
        action(REFUSE, threshold(name="mine")), resource_monitors=[monitor(name="mine")]
    ),
    "connections": manager(action(REFUSE, threshold(name=CONNECTIONS)), resource_monitors=[connections()]),
    "processors": manager(resource_monitors=[monitor("cpu_utilization.v3.CpuUtilizationConfig", mode="HOST")]),
    "timeouts": manager(action(REDUCE, typed_config=timers(IDLE, STREAMS, LONGEST))),
    "streams": manager(action(RESET, scaled(0.5, 0.9)), buffer_factory_config=BUFFERS),
    "a point": manager(loadshed_points=[{"name": ACCEPT_POINT, "triggers": [threshold()]}]),
    "a fast refresh": manager(refresh_interval="0.001s"),
}

BAD: dict[str, Document] = {
    "no monitors": bootstrap(overload_manager={"actions": [action()]}),
    "an unknown action": manager(action("envoy.overload_actions.nothing")),
    "an action twice": manager(action(), action()),
    "a monitor twice": manager(resource_monitors=[monitor(), monitor()]),
    "an unknown monitor": manager(action(REFUSE, threshold(name="nobody"))),
    "a trigger twice": manager(action(REFUSE, threshold(), threshold(0.5))),
    "no triggers": manager({"name": REFUSE}),
    "a monitor without type": manager(resource_monitors=[{"name": INJECTED}]),
    "connections under another name": manager(resource_monitors=[connections("mine")]),
    "no connections": manager(resource_monitors=[connections(most=0)]),
    "no memory": manager(resource_monitors=[monitor("fixed_heap.v3.FixedHeapConfig", "h", max_heap_size_bytes=0)]),
    "a threshold above 1": manager(action(REFUSE, threshold(1.5))),
    "a threshold below 0": manager(action(REFUSE, threshold(-0.1))),
    "nothing to scale": manager(action(REFUSE, scaled(0.5, 0.5))),
    "scaled backwards": manager(action(REFUSE, scaled(0.6, 0.5))),
    "timeouts without saying which": manager(action(REDUCE)),
    "no timeouts": manager(action(REDUCE, typed_config=timers())),
    "a timeout twice": manager(action(REDUCE, typed_config=timers(IDLE, IDLE))),
    "a timeout without its least": manager(action(REDUCE, typed_config=timers({"timer": IDLE["timer"]}))),
    "an unspecified timeout": manager(action(REDUCE, typed_config=timers({**IDLE, "timer": "UNSPECIFIED"}))),
    "more than all of a timeout": manager(
        action(REDUCE, typed_config=timers({"timer": IDLE["timer"], "min_scale": {"value": 150}}))
    ),
    "timeouts of another action": manager(action(REFUSE, typed_config=timers(IDLE))),
    "another configuration": manager(action(REDUCE, typed_config=monitor()["typed_config"])),
    "streams of any size": manager(action(RESET, scaled(0.5, 0.9))),
    "streams too small": manager(buffer_factory_config={"minimum_account_to_track_power_of_two": 9}),
    "streams too large": manager(buffer_factory_config={"minimum_account_to_track_power_of_two": 57}),
    "a refresh before now": manager(refresh_interval="-1s"),
    "a point twice": manager(loadshed_points=[{"name": ACCEPT_POINT, "triggers": [threshold()]}] * 2),
    "a point of nobody": manager(loadshed_points=[{"name": ACCEPT_POINT, "triggers": [threshold(name="nobody")]}]),
    "a point without triggers": manager(loadshed_points=[{"name": ACCEPT_POINT}]),
    "a trigger without its kind": manager(action(REFUSE, {"name": INJECTED})),
    "no file": manager(resource_monitors=[monitor(filename="")]),
}

STRICTER: dict[str, Document] = {
    "an unknown point": manager(
        loadshed_points=[{"name": "envoy.load_shed_points.nowhere", "triggers": [threshold()]}]
    ),
    "a point that is not implemented": manager(
        loadshed_points=[{"name": "envoy.load_shed_points.http1_server_abort_dispatch", "triggers": [threshold()]}]
    ),
    "a timeout that is not implemented": manager(
        action(REDUCE, typed_config=timers({"timer": "TRANSPORT_SOCKET_CONNECT", "min_scale": {"value": 50}}))
    ),
    "memory of a control group": manager(
        resource_monitors=[monitor("cgroup_memory.v3.CgroupMemoryConfig", "m", max_memory_bytes=1000)]
    ),
}
"""What Envoy accepts, and Mizzen has not got."""


@pytest.fixture(scope="module")
def envoy() -> str:
    try:
        return envoy_binary()
    except EnvoyUnavailableError as error:
        pytest.skip(str(error))


def refused_by_envoy(envoy: str, document: Document, directory: Path) -> str:
    """What Envoy has against the document; empty when nothing."""
    file = directory / "bootstrap.json"
    file.write_text(json.dumps(document))
    command = [envoy, "--mode", "validate", "--config-path", str(file), "--use-dynamic-base-id", "--log-level", "error"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("name", GOOD)
def test_both_accept_what_is_good(name: str, envoy: str, tmp_path: Path) -> None:
    load(GOOD[name])
    assert refused_by_envoy(envoy, GOOD[name], tmp_path) == ""


@pytest.mark.parametrize("name", BAD)
def test_both_refuse_what_is_bad(name: str, envoy: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load(BAD[name])
    assert refused_by_envoy(envoy, BAD[name], tmp_path) != ""


@pytest.mark.parametrize("name", STRICTER)
def test_where_we_are_stricter(name: str, envoy: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        load(STRICTER[name])
    assert refused_by_envoy(envoy, STRICTER[name], tmp_path) == ""


def built(document: Document) -> OverloadManager:
    configured = load(document)[0].overload_manager
    assert configured is not None
    return configured


def test_a_whole_one() -> None:
    heap = monitor("fixed_heap.v3.FixedHeapConfig", "heap", max_heap_size_bytes=1 << 30)
    document = manager(
        action(REFUSE, threshold(0.9), scaled(0.5, 0.75, "heap")),
        action(REDUCE, typed_config=timers(IDLE, STREAMS)),
        resource_monitors=[monitor(), heap, connections()],
        loadshed_points=[{"name": ACCEPT_POINT, "triggers": [threshold(0.25)]}],
        refresh_interval="0.25s",
        buffer_factory_config=BUFFERS,
    )
    assert built(document) == OverloadManager(
        (
            ResourceMonitor(INJECTED, INJECTED_RESOURCE, filename="/tmp/pressure"),
            ResourceMonitor("heap", FIXED_HEAP, 1 << 30),
            ResourceMonitor(CONNECTIONS, DOWNSTREAM_CONNECTIONS, 10),
        ),
        (
            OverloadAction(REFUSE, (Trigger(INJECTED, 0.9, 0.9), Trigger("heap", 0.5, 0.75))),
            OverloadAction(
                REDUCE,
                (Trigger(INJECTED, 0.9, 0.9),),
                (
                    ScaledTimer("HTTP_DOWNSTREAM_CONNECTION_IDLE", 2.0),
                    ScaledTimer("HTTP_DOWNSTREAM_STREAM_IDLE", None, 0.5),
                ),
            ),
        ),
        (OverloadAction(ACCEPT_POINT, (Trigger(INJECTED, 0.25, 0.25),)),),
        0.25,
        1 << 21,
    )


def test_our_own_monitors_and_actions() -> None:
    document = manager(
        action("mizzen.overload_actions.stop_reading", threshold(name=LOOP_LAG)),
        resource_monitors=[own(LOOP_LAG, max_lag=0.25), own(ACCEPT_QUEUE)],
    )
    configured = built(document)
    assert configured.resource_monitors == (
        ResourceMonitor(LOOP_LAG, EVENT_LOOP_LAG, 0.25),
        ResourceMonitor(ACCEPT_QUEUE, ACCEPT_QUEUE_WAIT, 0.5),
    )
    assert [one.name for one in configured.actions] == ["mizzen.overload_actions.stop_reading"]


def test_a_queue_that_nobody_watches_is_not_trimmed() -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(manager(action("mizzen.overload_actions.trim_accept_queue")))
    (problem,) = raised.value.problems
    assert problem.path == "overload_manager.resource_monitors"


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (own(LOOP_LAG, max_lag=0), "max_lag must be a number of seconds above 0, at most 60, and is 0"),
        (own(LOOP_LAG, max_lag="1s"), "max_lag must be a number of seconds above 0, at most 60, and is '1s'"),
        (own(ACCEPT_QUEUE, max_lag=1), "mizzen.resource_monitors.accept_queue has no 'max_lag'"),
        (own("mizzen.resource_monitors.moon"), "the type 'type.googleapis.com/mizzen.resource_monitors.moon' is not"),
    ],
)
def test_what_is_wrong_with_our_own_is_told(wrong: Document, told: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(manager(resource_monitors=[wrong]))
    assert any(problem.problem.startswith(told) for problem in raised.value.problems)
