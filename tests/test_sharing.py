"""Which tests one process has to itself where several run them."""

from __future__ import annotations

import pytest

from tests.differential.cases import CASES

sharing = pytest.importorskip("tests.sharing", reason="needs pytest-xdist")


def test_those_of_a_file_stay_together() -> None:
    names = ["test_one", "test_two[a::b]", "TestAll::test_three"]
    assert {sharing.group(f"tests/docs/test_pages.py::{name}") for name in names} == {"tests/docs/test_pages.py"}


def test_those_of_a_pair_of_proxies_stay_together() -> None:
    for case in CASES:
        for test in ("test_exchange", "test_access_log"):
            assert sharing.group(f"{sharing.CASES_FILE}::{test}[{case.name}]") == case.bootstrap
