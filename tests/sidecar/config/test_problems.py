from __future__ import annotations

import pytest

from sidecar.config.problems import ConfigurationError, Problem, did_you_mean, key_label, path_of


def test_a_problem_tells_file_line_path_and_what_to_do() -> None:
    problem = Problem("envoy.yaml", 12, 3, "static_resources.listeners[0].name", "is required", "set it")
    assert str(problem) == "envoy.yaml:12: static_resources.listeners[0].name: is required; set it"


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("a.yaml", 0, 0, "node.id", "is wrong"), "a.yaml: node.id: is wrong"),
        (Problem("a.yaml", 1, 0, "", "is empty", "fill it"), "a.yaml:1: is empty; fill it"),
    ],
)
def test_what_is_not_known_is_left_out(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_an_error_sorts_by_line_and_says_nothing_twice() -> None:
    late, early = Problem("f", 9, 1, "b", "is late"), Problem("f", 2, 1, "a", "is early")
    nowhere = Problem("f", 0, 0, "c", "is nowhere")
    error = ConfigurationError([nowhere, late, early, late])
    assert error.problems == (early, late, nowhere)
    assert str(error).splitlines() == ["f:2: a: is early", "f:9: b: is late", "f: c: is nowhere"]


def test_the_nearest_name_is_suggested() -> None:
    known = ["connect_timeout", "lb_policy"]
    assert did_you_mean("conect_timeout", known) == "did you mean 'connect_timeout'?"
    assert did_you_mean("zzz", known, "remove it") == "remove it"


def test_places_become_paths() -> None:
    where = (((None, ".routes"), "[3]"), key_label('a"b'))
    assert path_of(where) == 'routes[3]["a\\"b"]'
    assert path_of(None) == ""
