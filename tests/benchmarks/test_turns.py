"""The order of turns, and what becomes of a proxy that fails in one."""

from __future__ import annotations

from pathlib import Path

from benchmarks.context import Context
from benchmarks.load import FailedRequests
from benchmarks.turns import take_turns


def context(tmp_path: Path, rounds: int, seconds: float = 5.0) -> Context:
    return Context(proxies=[], rounds=rounds, seconds=seconds, directory=tmp_path)


def test_turns_alternate_after_a_warm_up_that_does_not_count(tmp_path: Path) -> None:
    calls: list[tuple[str, float]] = []

    def once(name: str, seconds: float) -> dict[str, float]:
        calls.append((name, seconds))
        return {"cpu_us": float(len(calls))}

    results = take_turns(context(tmp_path, rounds=2), "cell", ["ours", "envoy"], once)
    assert calls == [("ours", 2.0), ("envoy", 2.0), ("ours", 5.0), ("envoy", 5.0), ("ours", 5.0), ("envoy", 5.0)]
    assert results["ours"].column("cpu_us") == [3.0, 5.0]
    assert results["envoy"].column("cpu_us") == [4.0, 6.0]


def test_a_proxy_that_fails_is_out_and_named_and_the_others_go_on(tmp_path: Path) -> None:
    calls: list[str] = []

    def once(name: str, seconds: float) -> dict[str, float]:
        calls.append(name)
        if calls.count("ours") == 2 and name == "ours":
            raise FailedRequests("7 of 9 requests failed")
        return {"cpu_us": 1.0}

    place = context(tmp_path, rounds=2)
    results = take_turns(place, "mesh-bare", ["ours", "envoy"], once)
    assert calls == ["ours", "envoy", "ours", "envoy", "envoy"]
    assert list(results) == ["envoy"]
    assert len(results["envoy"].samples) == 2
    assert place.problems == ["ours is not measured in mesh-bare: 7 of 9 requests failed"]
