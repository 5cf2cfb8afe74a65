"""CEL as people write it, parsed into what configurations hold: `google.api.expr.v1alpha1.Expr` in its JSON form.

Enough of the grammar for tests: every operator, literals, calls, `has`, and the macros of lists and maps, expanded as the
language definition says.
"""

from __future__ import annotations

import re
from typing import Any

Expr = dict[str, Any]

_TOKEN = re.compile(
    r"""\s*(?:(?P<double>\d+\.\d+(?:[eE][+-]?\d+)?)|(?P<uint>\d+)u|(?P<int>\d+)|b(?P<bytes>'[^']*'|"[^"]*")
    |(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")|(?P<name>[A-Za-z_]\w*)
    |(?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}]))""",
    re.VERBOSE,
)
_BINARY = [["||"], ["&&"], ["==", "!=", "<", "<=", ">", ">=", "in"], ["+", "-"], ["*", "/", "%"]]


def constant(kind: str, value: Any) -> Expr:
    return {"const_expr": {f"{kind}_value": value}}


def ident(name: str) -> Expr:
    return {"ident_expr": {"name": name}}


def call(function: str, *args: Expr, target: Expr | None = None) -> Expr:
    return {"call_expr": {"function": function, "args": list(args), **({"target": target} if target else {})}}


def parse_cel(text: str) -> Expr:
    """The expression that ``text`` is. Raises ValueError."""
    return _Parser(text).whole()


class _Parser:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if found is None:
                raise ValueError(f"cannot read {text[at:]!r}")
            assert found.lastgroup is not None
            self.tokens.append((found.lastgroup, found[found.lastgroup]))
            at = found.end()
        self.at = 0

    def whole(self) -> Expr:
        found = self.ternary()
        if self.at < len(self.tokens):
            raise ValueError(f"left over: {self.tokens[self.at :]}")
        return found

    def peek(self) -> str:
        kind, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        return text if kind in ("op", "name") else ""

    def take(self, *wanted: str) -> bool:
        if self.peek() in wanted:
            self.at += 1
            return True
        return False

    def need(self, wanted: str) -> None:
        if not self.take(wanted):
            raise ValueError(f"{wanted!r} is missing before {self.tokens[self.at :]}")

    def ternary(self) -> Expr:
        condition = self.binary(0)
        if not self.take("?"):
            return condition
        first = self.ternary()
        self.need(":")
        return call("_?_:_", condition, first, self.ternary())

    def binary(self, level: int) -> Expr:
        if level == len(_BINARY):
            return self.unary()
        left = self.binary(level + 1)
        while (operator := self.peek()) in _BINARY[level]:
            self.at += 1
            name = "@in" if operator == "in" else f"_{operator}_"
            left = call(name, left, self.binary(level + 1))
        return left

    def unary(self) -> Expr:
        if self.take("!"):
            return call("!_", self.unary())
        if self.take("-"):
            inner = self.unary()
            number = inner.get("const_expr", {})
            for kind in ("int64_value", "double_value"):
                if kind in number and not str(number[kind]).startswith("-"):
                    return {"const_expr": {kind: -number[kind]}}
            return call("-_", inner)
        return self.member()

    def member(self) -> Expr:
        found = self.primary()
        while True:
            if self.take("."):
                name = self.tokens[self.at][1]
                self.at += 1
                if self.take("("):
                    found = _macro(found, name, self.arguments(")"))
                else:
                    found = {"select_expr": {"operand": found, "field": name}}
            elif self.take("["):
                key = self.ternary()
                self.need("]")
                found = call("_[_]", found, key)
            else:
                return found

    def arguments(self, end: str) -> list[Expr]:
        found = []
        while not self.take(end):
            found.append(self.ternary())
            if not self.take(","):
                self.need(end)
                break
        return found

    def primary(self) -> Expr:
        kind, text = self.tokens[self.at]
        self.at += 1
        match kind:
            case "double":
                return constant("double", float(text))
            case "uint":
                return constant("uint64", int(text))
            case "int":
                return constant("int64", int(text))
            case "string":
                return constant("string", re.sub(r"\\(.)", r"\1", text[1:-1]))
            case "bytes":
                import base64

                return constant("bytes", base64.b64encode(text[1:-1].encode()).decode())
            case "name":
                if text in ("true", "false"):
                    return constant("bool", text == "true")
                if text == "null":
                    return {"const_expr": {"null_value": 0}}
                if self.take("("):
                    arguments = self.arguments(")")
                    if text == "has":
                        (select,) = arguments
                        return {"select_expr": {**select["select_expr"], "test_only": True}}
                    return call(text, *arguments)
                return ident(text)
        if text == "(":
            inner = self.ternary()
            self.need(")")
            return inner
        if text == "[":
            return {"list_expr": {"elements": self.arguments("]")}}
        if text == "{":
            entries = []
            while not self.take("}"):
                key = self.ternary()
                self.need(":")
                entries.append({"map_key": key, "value": self.ternary()})
                if not self.take(","):
                    self.need("}")
                    break
            return {"struct_expr": {"entries": entries}}
        raise ValueError(f"unexpected {text!r}")


def _macro(target: Expr, name: str, arguments: list[Expr]) -> Expr:
    if name not in ("all", "exists", "exists_one", "map", "filter") or len(arguments) != 2:
        return call(name, *arguments, target=target)
    variable, body = arguments[0]["ident_expr"]["name"], arguments[1]
    accu = ident("@result")
    true, zero, one = constant("bool", True), constant("int64", 0), constant("int64", 1)

    def fold(start: Expr, goes_on: Expr, step: Expr, result: Expr) -> Expr:
        return {
            "comprehension_expr": {
                "iter_var": variable,
                "iter_range": target,
                "accu_var": "@result",
                "accu_init": start,
                "loop_condition": goes_on,
                "loop_step": step,
                "result": result,
            }
        }

    empty: Expr = {"list_expr": {}}
    appended = call("_+_", accu, {"list_expr": {"elements": [ident(variable)]}})
    match name:
        case "all":
            return fold(true, call("@not_strictly_false", accu), call("_&&_", accu, body), accu)
        case "exists":
            goes_on = call("@not_strictly_false", call("!_", accu))
            return fold(constant("bool", False), goes_on, call("_||_", accu, body), accu)
        case "exists_one":
            return fold(zero, true, call("_?_:_", body, call("_+_", accu, one), accu), call("_==_", accu, one))
        case "map":
            return fold(empty, true, call("_+_", accu, {"list_expr": {"elements": [body]}}), accu)
        case _:
            return fold(empty, true, call("_?_:_", body, appended, accu), accu)
