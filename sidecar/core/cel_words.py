"""Expressions in CEL written out again, and which parts of a condition do not hold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sidecar.config.cel import (
    Call,
    Cel,
    CelCondition,
    Comprehension,
    Constant,
    Duration,
    Ident,
    ListLiteral,
    MapLiteral,
    Select,
    Timestamp,
    Uint,
)
from sidecar.core.cel import compile_expression
from sidecar.core.cel_attributes import REQUEST_ATTRIBUTES
from sidecar.core.cel_functions import to_string
from sidecar.core.cel_values import CelError

_MACROS = {"_||_": "exists", "_&&_": "all"}


def unmet_parts(condition: CelCondition, subject: Any) -> list[str]:
    """The parts between the outermost `&&` that do not hold for an ``RbacSubject``, in words; none if all hold."""
    unmet = []
    for part in _conjuncts(condition.root):
        one = CelCondition(part, condition.string_conversion, condition.string_concat, condition.string_functions)
        try:
            value = compile_expression(one, REQUEST_ATTRIBUTES)(subject)
        except CelError as error:
            unmet.append(f"condition {describe_cel(part)} ends in an error: {error}")
            continue
        if value is not True:
            unmet.append(f"condition {describe_cel(part)} is not met")
    return unmet


def _conjuncts(node: Cel) -> Iterator[Cel]:
    if isinstance(node, Call) and node.function == "_&&_":
        for part in node.args:
            yield from _conjuncts(part)
    else:
        yield node


def describe_cel(node: Cel) -> str:
    """An expression as people write it."""
    match node:
        case Constant(value):
            return _literal(value)
        case Ident(name):
            return name
        case Select(operand, field, test_only):
            text = f"{describe_cel(operand)}.{field}"
            return f"has({text})" if test_only else text
        case ListLiteral(elements):
            return f"[{', '.join(map(describe_cel, elements))}]"
        case MapLiteral(entries):
            return f"{{{', '.join(f'{describe_cel(key)}: {describe_cel(value)}' for key, value in entries)}}}"
        case Comprehension():
            return _comprehension(node)
        case Call(function, args, target):
            return _call(function, [_operand(one) for one in args], args, target)


def _call(function: str, operands: list[str], args: tuple[Cel, ...], target: Cel | None) -> str:
    if target is not None:
        return f"{_operand(target)}.{function}({', '.join(map(describe_cel, args))})"
    match function, operands:
        case "_[_]", [container, _]:
            return f"{container}[{describe_cel(args[1])}]"
        case "_?_:_", [condition, first, second]:
            return f"{condition} ? {first} : {second}"
        case (("!_" | "-_"), [only]):
            return f"{function[0]}{only}"
        case (("@in" | "_in_" | "in"), [value, container]):
            return f"{value} in {container}"
        case _, [first, second] if function[:1] == function[-1:] == "_":
            return f"{first} {function[1:-1]} {second}"
    return f"{function}({', '.join(map(describe_cel, args))})"


def _operand(node: Cel) -> str:
    """An expression as a part of another: operators stand in parentheses."""
    text = describe_cel(node)
    operator = isinstance(node, Call) and node.target is None and not node.function.isidentifier()
    return f"({text})" if operator and isinstance(node, Call) and node.function != "_[_]" else text


def _comprehension(node: Comprehension) -> str:
    step = node.loop_step
    over = f"{_operand(node.iter_range)}."
    if isinstance(step, Call) and step.function in _MACROS and isinstance(node.result, Ident):
        return f"{over}{_MACROS[step.function]}({node.iter_var}, {describe_cel(step.args[1])})"
    return f"{over}fold({node.iter_var}, {describe_cel(step)})"


def _literal(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case Uint():
            return f"{int(value)}u"
        case Timestamp():
            return f"timestamp({json.dumps(to_string(value))})"
        case Duration():
            return f"duration({json.dumps(to_string(value))})"
        case bytes():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False)
    return str(value)
