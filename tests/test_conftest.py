"""What holds for all tests, itself."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import give_lines


def without_lines() -> None:
    raise ValueError("somewhere")


def test_a_failure_without_a_line_can_be_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    code: Any = without_lines.__code__
    nowhere = bytes(0x80 | 15 << 3 | min(8, left) - 1 for left in range(len(code.co_code) // 2, 0, -8))
    monkeypatch.setattr(without_lines, "__code__", code.replace(co_linetable=nowhere))
    with pytest.raises(ValueError, match="somewhere") as raised:
        try:
            without_lines()
        except ValueError as error:
            raise ValueError("somewhere else") from error
    error: BaseException = raised.value
    assert error.__cause__ is not None
    assert any(one is None for one in lines(error.__cause__))
    give_lines(error)
    assert all(lines(error))
    assert lines(error.__cause__)[-1] == code.co_firstlineno
    assert "somewhere" in str(pytest.ExceptionInfo.from_exception(error).getrepr(style="long"))


def lines(error: BaseException) -> list[Any]:
    found, at = [], error.__traceback__
    while at is not None:
        found.append(at.tb_lineno)
        at = at.tb_next
    return found
