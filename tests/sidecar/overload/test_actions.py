"""What is done, over listeners and connection managers that write down what they are asked for."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from sidecar.overload import actions
from sidecar.overload.defaults import default_overload_manager, most_connections


class Stage:
    """Writes down every call."""

    def __init__(self, holding: int = 0) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.holding = holding

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.calls.append((name, *arguments))

    def reset_streams(self, pressure: float, most: int) -> int:
        self.calls.append(("reset_streams", pressure, most))
        return min(self.holding, most)


def test_accepting_stops_when_it_is_saturated_only() -> None:
    stage = Stage()
    act = actions.stop_accepting_connections(lambda: [stage])
    for scale in (0.5, 1.0, 0.9):
        act(scale)
    assert stage.calls == [("resume_accepting",), ("pause_accepting",), ("resume_accepting",)]


def test_no_more_wait_than_are_accepted_in_good_time_and_the_later_a_turn_is_the_fewer_are_accepted_in_it() -> None:
    stage = Stage()
    lag = [0.1]
    act = actions.trim_accept_queue(lambda: [stage], lambda: 1000.0, lambda: lag[0])
    act(1.0)
    lag[0] = 0.0
    act(1.0)
    act(0.0)
    assert stage.calls == [
        ("trim", pytest.approx(300.0), pytest.approx(0.2)),
        ("trim", pytest.approx(300.0), 1.0),
        ("trim", inf, 1.0),
    ]


def test_reading_stops_when_it_is_saturated_only() -> None:
    stage = Stage()
    act = actions.stop_reading(lambda: [stage])
    for scale in (0.5, 1.0, 0.0):
        act(scale)
    assert stage.calls == [("stop_reading", False), ("stop_reading", True), ("stop_reading", False)]


def test_of_those_who_turn_away_the_one_counts_that_asks_for_most() -> None:
    def shed() -> None:
        raise AssertionError("not called here")

    for turning_away, name in ((actions.Rejecting, "reject"), (actions.Refusing, "refuse")):
        stage = Stage()
        away = turning_away(lambda stage=stage: [stage])  # type: ignore[misc]
        by_action, by_point = away.asked_by(None), away.asked_by(shed)
        by_action(0.5)
        by_point(1.0)
        by_action(0.0)
        by_point(0.0)
        assert stage.calls[:3] == [(name, 0.5, None), (name, 1.0, shed), (name, 1.0, shed)]
        assert stage.calls[3][:2] == (name, 0.0)


def test_the_scale_is_handed_on() -> None:
    stage = Stage()
    actions.disable_http_keepalive(lambda: [stage])(0.25)
    actions.reduce_timeouts(lambda: [stage])(0.75)
    assert stage.calls == [("close_connections", 0.25), ("scale_timers", 0.75)]


def test_fifty_streams_are_reset_at_once_whoever_has_them() -> None:
    first, second, third = Stage(30), Stage(30), Stage(30)
    counted: list[int] = []
    act = actions.reset_high_memory_stream(lambda: [first, second, third], counted.append)
    act(0.5)
    assert first.calls == [("reset_streams", 0.5, 50)]
    assert second.calls == [("reset_streams", 0.5, 20)]
    assert third.calls == []
    assert sum(counted) == 50
    act(0.0)
    assert len(first.calls) == 1


def test_memory_is_given_back_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[float] = []
    now = [100.0]
    monkeypatch.setattr(actions, "give_back_memory", lambda: done.append(now[0]))
    counts: list[None] = []
    act = actions.shrink_heap(lambda: now[0], lambda: counts.append(None))
    for at, scale in ((100.0, 0.5), (101.0, 1.0), (105.0, 1.0), (111.0, 1.0)):
        now[0] = at
        act(scale)
    assert done == [101.0, 111.0]
    assert len(counts) == 2


def test_giving_back_memory_goes_through() -> None:
    actions.give_back_memory()


def test_every_trigger_of_the_defaults_has_its_monitor() -> None:
    manager = default_overload_manager(1 << 30, 1000)
    names = {monitor.name for monitor in manager.resource_monitors}
    assert all(trigger.name in names for action in manager.actions for trigger in action.triggers)
    assert len({action.name for action in manager.actions}) == len(manager.actions)


@pytest.mark.parametrize(
    ("limit", "used", "most"),
    [(1 << 30, 40 << 20, 0.8 * (1 << 30)), (64 << 20, 40 << 20, 104 << 20), (130 << 20, 40 << 20, 104 << 20)],
    ids=["much", "hardly more than it has", "a little"],
)
def test_memory_that_is_limited_narrowly_leaves_room_for_work(limit: int, used: int, most: float) -> None:
    """To refuse everything from the beginning helps nobody."""
    manager = default_overload_manager(limit, 1000, used)
    (heap,) = [one for one in manager.resource_monitors if one.name == "envoy.resource_monitors.fixed_heap"]
    assert heap.most == pytest.approx(most)


def test_a_quarter_of_the_descriptors_is_not_for_clients() -> None:
    assert most_connections(1024) == 768
    assert most_connections(20_000) == 15_000
    assert most_connections(20) == 16
    assert most_connections() > 16
