"""Expressions in CEL, parsed already: `google.api.expr.v1alpha1.Expr` and `CheckedExpr` as frozen objects.

What the expressions mean is in `sidecar.core.cel`. Source: the CEL language definition and the reference of
`google.api.expr.v1alpha1`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from sidecar.config.fields import Node

_DEEPEST = 60
_LARGEST = 2000


class Uint(int):
    """An unsigned integer of 64 bits: another type than an integer."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}u"


class Timestamp(int):
    """Nanoseconds since 1970, UTC."""

    __slots__ = ()


class Duration(int):
    """Nanoseconds."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal."""

    value: bool | int | float | str | bytes | None


@dataclass(frozen=True, slots=True)
class Ident:
    """A name."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """`operand.field`, or `has(operand.field)` if `test_only`."""

    operand: Cel
    field: str
    test_only: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """`function(args)`, or `target.function(args)`. Operators are functions, too: `_&&_`, `_==_`, `@in`."""

    function: str
    args: tuple[Cel, ...]
    target: Cel | None = None


@dataclass(frozen=True, slots=True)
class ListLiteral:
    """`[elements]`."""

    elements: tuple[Cel, ...]


@dataclass(frozen=True, slots=True)
class MapLiteral:
    """`{key: value}`."""

    entries: tuple[tuple[Cel, Cel], ...]


@dataclass(frozen=True, slots=True)
class Comprehension:
    """What the macros `all`, `exists`, `exists_one`, `map` and `filter` become: a fold over a list or a map's keys."""

    iter_var: str
    iter_range: Cel
    accu_var: str
    accu_init: Cel
    loop_condition: Cel
    loop_step: Cel
    result: Cel


Cel: TypeAlias = Constant | Ident | Select | Call | ListLiteral | MapLiteral | Comprehension


@dataclass(frozen=True, slots=True)
class CelCondition:
    """An expression that holds if it is `true`; one that fails, or that is no boolean, does not.

    The others are what `CelExpressionConfig` switches on: `string(...)`, `+` between strings, and `lowerAscii` and kin.
    """

    root: Cel
    string_conversion: bool = False
    string_concat: bool = False
    string_functions: bool = False


_NULL = Constant(None)


def parse_condition(policy: Node) -> CelCondition | None:
    """The `condition` or `checked_condition` of a policy with its `cel_config`, or None without one."""
    condition, checked, options = (policy.child(name) for name in ("condition", "checked_condition", "cel_config"))
    field = "condition"
    if checked is not None:
        if condition is not None:
            policy.refuse("cannot go with condition", "checked_condition", "keep one of them")
        field = "checked_condition"
        condition = checked.child("expr")
        for known in ("reference_map", "type_map", "source_info", "expr_version"):
            checked.disregard(known)
    flags = (False, False, False)
    if options is not None:
        names = ("enable_string_conversion", "enable_string_concat", "enable_string_functions")
        flags = (options.get(names[0]), options.get(names[1]), options.get(names[2]))
    if condition is None:
        return None
    parser = _Parser()
    made = CelCondition(parser.parse(condition), *flags)
    if not parser.too_large:
        from sidecar.core.cel import problem_of  # a large module, that few configurations need

        problem = problem_of(made)
        if problem is not None:
            policy.refuse(problem, field, "correct the expression")
    return made


class _Parser:
    """Parses one expression, and counts how large it is."""

    def __init__(self) -> None:
        self.size = 0
        self.too_large = False

    def parse(self, node: Node, depth: int = 1) -> Cel:
        self.size += 1
        if depth > _DEEPEST or self.size > _LARGEST:
            if not self.too_large:
                self.too_large = True
                node.refuse(
                    f"makes the expression too large: it may have {_LARGEST} parts, {_DEEPEST} in one another",
                    do="make it several policies",
                )
            node.disregard()
            return _NULL
        node.get("id")
        match node.which("expr_kind"):
            case "const_expr":
                return _constant(node.child("const_expr"))
            case "ident_expr":
                ident = node.child("ident_expr")
                return Ident("" if ident is None else ident.get("name"))
            case "select_expr":
                return self._select(node.child("select_expr"), depth)
            case "call_expr":
                return self._call(node.child("call_expr"), depth)
            case "list_expr":
                elements = node.child("list_expr")
                return ListLiteral(() if elements is None else self._all(elements, "elements", depth))
            case "struct_expr":
                return self._map(node.child("struct_expr"), depth)
            case "comprehension_expr":
                return self._comprehension(node.child("comprehension_expr"), depth)
        node.refuse("is an empty expression", do="give one of const_expr, ident_expr, select_expr, call_expr, ...")
        return _NULL

    def _all(self, node: Node, field: str, depth: int) -> tuple[Cel, ...]:
        return tuple(self.parse(one, depth + 1) for one in node.children(field))

    def _part(self, node: Node, field: str, depth: int) -> Cel:
        part = node.child(field)
        if part is None:
            node.refuse("is required", field, "set it: the parser of CEL does")
            return _NULL
        return self.parse(part, depth + 1)

    def _select(self, node: Node | None, depth: int) -> Cel:
        assert node is not None
        return Select(self._part(node, "operand", depth), node.get("field"), node.get("test_only"))

    def _call(self, node: Node | None, depth: int) -> Cel:
        assert node is not None
        target = node.child("target")
        return Call(
            node.get("function"),
            self._all(node, "args", depth),
            None if target is None else self.parse(target, depth + 1),
        )

    def _map(self, node: Node | None, depth: int) -> Cel:
        assert node is not None
        entries = []
        for entry in node.children("entries"):
            entry.get("id")
            if entry.which("key_kind") == "field_key":
                entry.refuse("makes a message, and only maps can be made", "field_key", "use map_key")
                entry.disregard()
                continue
            entries.append((self._part(entry, "map_key", depth), self._part(entry, "value", depth)))
        return MapLiteral(tuple(entries))

    def _comprehension(self, node: Node | None, depth: int) -> Cel:
        assert node is not None
        return Comprehension(
            node.get("iter_var"),
            self._part(node, "iter_range", depth),
            node.get("accu_var"),
            self._part(node, "accu_init", depth),
            self._part(node, "loop_condition", depth),
            self._part(node, "loop_step", depth),
            self._part(node, "result", depth),
        )


def _constant(node: Node | None) -> Constant:
    assert node is not None
    match node.which("constant_kind"):
        case "uint64_value":
            return Constant(Uint(node.get("uint64_value")))
        case ("bool_value" | "int64_value" | "double_value" | "string_value" | "bytes_value") as kind:
            return Constant(node.get(kind))
        case ("duration_value" | "timestamp_value") as kind:
            inner = node.child(kind)
            assert inner is not None
            nanoseconds = inner.get("seconds") * 1_000_000_000 + inner.get("nanos")
            return Constant(Duration(nanoseconds) if kind == "duration_value" else Timestamp(nanoseconds))
        case _:
            node.get("null_value")
            return _NULL
