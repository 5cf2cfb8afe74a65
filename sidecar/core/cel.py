"""Expressions in CEL, compiled to closures: what a policy's condition is asked with on every request.

A closure takes the environment of one evaluation, a list: who asks (an ``RbacSubject``), how many steps of
comprehensions are left, and then the variables of comprehensions. It returns a value or raises ``CelError``. Source: the
CEL language definition, section "Evaluation"; the attributes are those of ``sidecar.core.cel_attributes``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sidecar.config.cel import (
    Call,
    Cel,
    CelCondition,
    Comprehension,
    Constant,
    Ident,
    ListLiteral,
    MapLiteral,
    Select,
)
from sidecar.core import cel_values as values
from sidecar.core.cel_attributes import REQUEST_ATTRIBUTES, Attributes
from sidecar.core.cel_functions import FUNCTIONS, STRING_CONVERSION, STRING_FUNCTIONS, compile_regex
from sidecar.core.cel_values import CelError, CelMap, CelType

Env = list[Any]
Code = Callable[[Env], Any]

MOST_STEPS = 10_000
"""How many steps all comprehensions of an expression may take together in one evaluation."""

_TYPES = {name: CelType(name) for name in ("bool", "int", "uint", "double", "string", "bytes", "list", "map", "type")}
_TYPES["null_type"] = CelType("null_type")

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "_==_": values.equal,
    "_!=_": lambda one, other: not values.equal(one, other),
    "_<_": values.less,
    "_<=_": values.less_equal,
    "_>_": values.greater,
    "_>=_": values.greater_equal,
    "_+_": values.add,
    "_-_": values.subtract,
    "_*_": values.multiply,
    "_/_": values.divide,
    "_%_": values.modulo,
    "_[_]": values.index,
    "@in": values.contained,
    "_in_": values.contained,
    "in": values.contained,
}


class CelProblem(Exception):
    """The expression can have no value: it names what is not there. The text says what, and what to do."""


def compile_condition(condition: CelCondition, attributes: Attributes | Mapping[str, Any]) -> Callable[[Any], bool]:
    """From who asks to whether the expression holds. ``attributes`` are what its names mean; plain values for tests.

    Raises CelProblem for names and functions that there are not.
    """
    evaluate = compile_expression(condition, attributes)

    def holds(subject: Any) -> bool:
        try:
            return evaluate(subject) is True
        except CelError:
            return False

    return holds


def compile_expression(condition: CelCondition, attributes: Attributes | Mapping[str, Any]) -> Callable[[Any], Any]:
    """From who asks to the expression's value; the function raises CelError where it has none.

    Raises CelProblem for names and functions that there are not.
    """
    compiler = _Compiler(condition, attributes)
    code = compiler.compile(condition.root, {})
    rest = [MOST_STEPS, *([None] * compiler.variables)]
    return lambda subject: code([subject, *rest])


def problem_of(condition: CelCondition) -> str | None:
    """Why an expression can have no value where access is decided, or None."""
    try:
        compile_expression(condition, REQUEST_ATTRIBUTES)
    except CelProblem as problem:
        return str(problem)
    return None


class _Compiler:
    def __init__(self, condition: CelCondition, attributes: Attributes | Mapping[str, Any]) -> None:
        self.condition = condition
        self.attributes = attributes
        self.variables = 0
        self.looping = 0
        self.functions = dict(FUNCTIONS)
        if condition.string_conversion:
            self.functions |= STRING_CONVERSION
        if condition.string_functions:
            self.functions |= STRING_FUNCTIONS

    def compile(self, node: Cel, scope: Mapping[str, int]) -> Code:
        match node:
            case Constant(value):
                return lambda env: value
            case Ident(name):
                return self._ident(name, scope)
            case Select():
                return self._select(node, scope)
            case Call():
                return self._call(node, scope)
            case ListLiteral(elements):
                codes = tuple(self.compile(one, scope) for one in elements)
                if all(isinstance(one, Constant) for one in elements):
                    constant = [one([]) for one in codes]
                    return lambda env: constant
                return lambda env: [one(env) for one in codes]
            case MapLiteral(entries):
                pairs = tuple((self.compile(key, scope), self.compile(value, scope)) for key, value in entries)
                return lambda env: CelMap((key(env), value(env)) for key, value in pairs)
            case Comprehension():
                return self._comprehension(node, scope)

    def _ident(self, name: str, scope: Mapping[str, int]) -> Code:
        place = scope.get(name)
        if place is not None:

            def variable(env: Env) -> Any:
                value = env[place]
                if isinstance(value, CelError):
                    raise value
                return value

            return variable
        if name in _TYPES:
            constant = _TYPES[name]
            return lambda env: constant
        if isinstance(self.attributes, Attributes):
            raise CelProblem(self.attributes.misused(name))
        if name not in self.attributes:
            raise CelProblem(f"{name!r} is no attribute")
        value = self.attributes[name]
        return lambda env: value

    def _attribute(self, node: Cel, scope: Mapping[str, int]) -> Callable[[Any], Any] | None:
        """What reads the attribute that ``node`` names, if it names one: `request.path`, `request["path"]`."""
        if not isinstance(self.attributes, Attributes):
            return None
        match node:
            case Select(Ident(root), field, _) if root not in scope and root in self.attributes.roots:
                pass
            case Call("_[_]", (Ident(root), Constant(str() as field)), None) if (
                root not in scope and root in self.attributes.roots
            ):
                pass
            case _:
                return None
        read = self.attributes.find(root, field)
        if read is None:
            raise CelProblem(self.attributes.unknown(root, field))
        return read

    def _select(self, node: Select, scope: Mapping[str, int]) -> Code:
        read = self._attribute(node, scope)
        if read is not None:
            if node.test_only:
                return lambda env: _has_value(read, env[0])
            return lambda env: read(env[0])
        operand, field = self.compile(node.operand, scope), node.field
        if node.test_only:

            def has(env: Env) -> bool:
                container = operand(env)
                if not values.is_map(container):
                    raise CelError("has() of what is no map")
                return bool(container.has(field))

            return has

        def select(env: Env) -> Any:
            container = operand(env)
            if not values.is_map(container):
                raise CelError(f"no such field: {field}")
            return container.find(field)

        return select

    def _call(self, node: Call, scope: Mapping[str, int]) -> Code:
        read = self._attribute(node, scope)
        if read is not None:
            return lambda env: read(env[0])
        name = node.function
        parts = node.args if node.target is None else (node.target, *node.args)
        arity = len(parts)
        if node.target is None:
            made = self._operator(name, [self.compile(part, scope) for part in parts])
            if made is not None:
                return made
        function = self.functions.get((name, node.target is not None, arity))
        if function is None:
            raise CelProblem(self._unknown_function(name))
        codes = [self.compile(part, scope) for part in parts]
        if name == "matches" and isinstance(parts[1], Constant) and isinstance(parts[1].value, str):
            return _matching(codes[0], parts[1].value)
        if arity == 1:
            (only,) = codes
            return lambda env: function(only(env))
        if arity == 2:
            first, second = codes
            return lambda env: function(first(env), second(env))
        return lambda env: function(*[code(env) for code in codes])

    def _unknown_function(self, name: str) -> str:
        for names, option in ((STRING_CONVERSION, "conversion"), (STRING_FUNCTIONS, "functions")):
            if any(known == name for known, _, _ in names):
                return f"the function {name!r} is switched off; set cel_config.enable_string_{option}"
        return f"there is no function {name!r} with these arguments"

    def _operator(self, name: str, codes: list[Code]) -> Code | None:
        match name, codes:
            case "_&&_", [first, second]:
                return _and(first, second)
            case "_||_", [first, second]:
                return _or(first, second)
            case "_?_:_", [condition, first, second]:
                return _choose(condition, first, second)
            case "!_", [only]:
                return _not(only)
            case "-_", [only]:
                return lambda env: values.negate(only(env))
            case (("@not_strictly_false" | "__not_strictly_false__"), [only]):
                return _not_strictly_false(only)
            case _, [first, second] if name in _BINARY:
                operate = _BINARY[name]
                if name == "_+_" and (self.looping or self.condition.string_concat):
                    operate = values.concatenate_lists if self.looping else values.concatenate
                    if self.looping and not self.condition.string_concat:
                        operate = _lists_or_numbers
                return lambda env: operate(first(env), second(env))
        return None

    def _comprehension(self, node: Comprehension, scope: Mapping[str, int]) -> Code:
        over = self.compile(node.iter_range, scope)
        start = self.compile(node.accu_init, scope)
        accu, variable = self.variables + 2, self.variables + 3
        self.variables += 2
        with_accu = {**scope, node.accu_var: accu}
        inside = {**with_accu, node.iter_var: variable}
        self.looping += 1
        goes_on = self.compile(node.loop_condition, inside)
        step = self.compile(node.loop_step, inside)
        self.looping -= 1
        result = self.compile(node.result, with_accu)

        def fold(env: Env) -> Any:
            container = over(env)
            if type(container) is not list:
                if not values.is_map(container):
                    raise CelError("neither a list nor a map")
                container = container.keys()
            env[accu] = _or_error(start, env)
            for element in container:
                if env[1] <= 0:
                    raise CelError("comprehensions take too many steps")
                env[1] -= 1
                env[variable] = element
                if goes_on(env) is not True:
                    break
                env[accu] = _or_error(step, env)
                if type(env[accu]) is list:
                    env[1] -= len(env[accu]) >> 6
            return result(env)

        return fold


def _lists_or_numbers(one: Any, other: Any) -> Any:
    return values.concatenate_lists(one, other) if type(one) is list else values.add(one, other)


def _or_error(code: Code, env: Env) -> Any:
    """The value, or the error as one: what a comprehension has gathered may be an error that a later step absorbs."""
    try:
        return code(env)
    except CelError as error:
        return error


def _has_value(read: Callable[[Any], Any], subject: Any) -> bool:
    """`has()` of an attribute; of one that is a map in a message, whether anything is in it."""
    try:
        value = read(subject)
    except CelError:
        return False
    return not isinstance(value, values.StructMap) or len(value) > 0


def _boolean(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise CelError("no such overload: not a boolean")


def _and(first: Code, second: Code) -> Code:
    """False if either is, whatever happens to the other."""

    def both(env: Env) -> bool:
        try:
            if not _boolean(first(env)):
                return False
        except CelError:
            if second(env) is False:
                return False
            raise
        return _boolean(second(env))

    return both


def _or(first: Code, second: Code) -> Code:
    """True if either is, whatever happens to the other."""

    def either(env: Env) -> bool:
        try:
            if _boolean(first(env)):
                return True
        except CelError:
            if second(env) is True:
                return True
            raise
        return _boolean(second(env))

    return either


def _choose(condition: Code, first: Code, second: Code) -> Code:
    return lambda env: first(env) if _boolean(condition(env)) else second(env)


def _not(only: Code) -> Code:
    return lambda env: not _boolean(only(env))


def _not_strictly_false(only: Code) -> Code:
    def holds(env: Env) -> bool:
        try:
            return only(env) is not False
        except CelError:
            return True

    return holds


def _matching(text: Code, regex: str) -> Code:
    try:
        search = compile_regex(regex)
    except CelError as error:
        raise CelProblem(f"{regex!r} is {error}") from None

    def found(env: Env) -> bool:
        value = text(env)
        if not isinstance(value, str):
            raise CelError("no such overload: matches")
        return search(value) is not None

    return found
