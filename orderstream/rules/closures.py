"""Closures: a CEL expression as a Python function, for what orders ask again and again.

Law: a closure gives exactly what the library gives, or Undecided; who meets that asks the library. So the language stays CEL
and the library's word is the last one; a closure only spares asking it: to hand an order over and to run a dozen expressions
took a sixth of the line's processor time. `tests/rules/test_closures.py` holds the two together.

It decides where both sides of an operator are of one type that it knows, where every name and key is there, and where numbers
stay within 64 bits. It covers literals, fields, `has`, `size`, conversions, comparison, arithmetic, logic, `in`, `?:`, indexes, `exists`,
`all`, `filter`, `map` and the plain text functions; any other expression has no closure.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Env = Mapping[str, Any]
Closure = Callable[[Env], Any]


class Undecided(Exception):  # noqa: N818  not an error: a question for the library
    """What the values are like is the library's to judge."""


class _Unknown(Exception):  # noqa: N818
    """The expression has what closures do not cover."""


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<float>\d+\.\d+)(?![\w.]) | (?P<int>\d+)(?![\w.]) |
        (?P<text>"[^"\\\n]*"|'[^'\\\n]*') |
        (?P<name>[A-Za-z_]\w*) |
        (?P<op>\|\||&&|==|!=|<=|>=|[-+*/%<>!?:.,()\[\]])
    )""",
    re.VERBOSE,
)
_WORDS = frozenset({"true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
                    "loop", "package", "namespace", "return", "var", "void", "while"})  # fmt: skip
_FLAT = (int, str, bool, float)
_MOST = 2**63


def closure(source: str) -> Closure | None:
    """The function of an expression, from its variables' values; None where it has what is not covered.

    The source is one that the library has compiled.
    """
    try:
        tokens = _tokens(source)
        parser = _Parser(tokens)
        made = parser.expression()
        return made if parser.at == len(tokens) else None
    except _Unknown:
        return None


def _tokens(source: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    text = source.strip()
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _Unknown
        kind, value = match.lastgroup, match[match.lastgroup]
        out.append(("op" if kind == "name" and value == "in" else kind, value))
        at = match.end()
    return out


class _Parser:
    """Recursive descent over CEL's grammar, each rule giving a closure."""

    def __init__(self, tokens: Sequence[tuple[str, str]]) -> None:
        self.tokens = tokens
        self.at = 0

    def _next(self, *wanted: str) -> str | None:
        """Takes the next token where it is one of these operators."""
        if self.at < len(self.tokens):
            kind, value = self.tokens[self.at]
            if kind == "op" and value in wanted:
                self.at += 1
                return value
        return None

    def _need(self, wanted: str) -> None:
        if self._next(wanted) is None:
            raise _Unknown

    def _name(self) -> str:
        if self.at < len(self.tokens) and self.tokens[self.at][0] == "name":
            self.at += 1
            return self.tokens[self.at - 1][1]
        raise _Unknown

    def expression(self) -> Closure:
        condition = self._or()
        if self._next("?") is None:
            return condition
        yes = self._or()
        self._need(":")
        return _choice(condition, yes, self.expression())

    def _or(self) -> Closure:
        made = self._and()
        while self._next("||"):
            made = _either(made, self._and())
        return made

    def _and(self) -> Closure:
        made = self._relation()
        while self._next("&&"):
            made = _both(made, self._relation())
        return made

    def _relation(self) -> Closure:
        made = self._sum()
        while op := self._next("==", "!=", "<", "<=", ">", ">=", "in"):
            made = _member(made, self._sum()) if op == "in" else _compared(op, made, self._sum())
        return made

    def _sum(self) -> Closure:
        made = self._product()
        while op := self._next("+", "-"):
            made = _reckoned(op, made, self._product())
        return made

    def _product(self) -> Closure:
        made = self._unary()
        while op := self._next("*", "/", "%"):
            made = _reckoned(op, made, self._unary())
        return made

    def _unary(self) -> Closure:
        if self._next("!"):
            return _negated(self._unary())
        if self._next("-"):
            return _reckoned("-", lambda _: 0, self._unary())
        return self._postfix(self._primary())

    def _postfix(self, made: Closure) -> Closure:
        while True:
            if self._next("["):
                made = _indexed(made, self.expression())
                self._need("]")
            elif self._next("."):
                name = self._name()
                made = self._called(made, name) if self._next("(") else _field(made, name)
            else:
                return made

    def _called(self, of: Closure, name: str) -> Closure:
        if name in ("exists", "all", "filter", "map"):
            variable = self._name()
            self._need(",")
            body = self.expression()
            self._need(")")
            return _looped(name, of, variable, body)
        if name == "size":
            self._need(")")
            return _size(of)
        if name in _TEXT:
            argument = self.expression()
            self._need(")")
            return _asked(_TEXT[name], of, argument)
        raise _Unknown

    def _primary(self) -> Closure:
        if self._next("("):
            made = self.expression()
            self._need(")")
            return made
        if self.at == len(self.tokens):
            raise _Unknown
        kind, value = self.tokens[self.at]
        self.at += 1
        if kind == "int" and int(value) < _MOST:
            return _Constant(int(value))
        if kind == "float":
            return _Constant(float(value))
        if kind == "text":
            return _Constant(value[1:-1])
        if kind != "name":
            raise _Unknown
        if self._next("("):
            return self._function(value)
        if value in ("true", "false"):
            return _Constant(value == "true")
        if value in _WORDS:
            raise _Unknown
        return _Variable(value)

    def _function(self, name: str) -> Closure:
        if name == "size":
            made = _size(self.expression())
        elif name in _CONVERT:
            made = _converted(_CONVERT[name], self.expression())
        elif name == "has":
            of = self._primary()
            self._need(".")
            field = self._name()
            while self._next("."):
                of, field = _field(of, field), self._name()
            made = _has(of, field)
        else:
            raise _Unknown
        self._need(")")
        return made


_TEXT: dict[str, Callable[[str, str], bool]] = {
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": str.__contains__,
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_RECKON: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv, "%": operator.mod,
}  # fmt: skip


def _double(value: Any) -> float:
    if type(value) in (int, float):
        return float(value)
    raise Undecided


def _int(value: Any) -> int:
    if type(value) is int or (type(value) is float and abs(value) < 2**53):
        return int(value)
    raise Undecided


def _string(value: Any) -> str:
    if type(value) in (int, str):
        return str(value)
    raise Undecided


_CONVERT: dict[str, Callable[[Any], Any]] = {"double": _double, "int": _int, "string": _string}


class _Constant:
    """A literal. Who meets one need not ask for it at every order."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self, _: Env) -> Any:
        return self.value


class _Variable:
    """A name. Its fields are read in one step, as most of what expressions read is `order.total`."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, env: Env) -> Any:
        try:
            return env[self.name]
        except KeyError:
            raise Undecided from None


def _field(of: Closure, name: str) -> Closure:
    if isinstance(of, _Variable):
        variable = of.name

        def read(env: Env) -> Any:
            try:
                held = env[variable]
                if type(held) is dict:
                    return held[name]
            except KeyError:
                pass
            raise Undecided

        return read

    def run(env: Env) -> Any:
        held = of(env)
        if type(held) is dict and name in held:
            return held[name]
        raise Undecided

    return run


def _has(of: Closure, name: str) -> Closure:
    def run(env: Env) -> bool:
        held = of(env)
        if type(held) is dict:
            return name in held
        raise Undecided

    return run


def _size(of: Closure) -> Closure:
    def run(env: Env) -> int:
        held = of(env)
        if type(held) in (list, dict, str):
            return len(held)
        raise Undecided

    return run


def _converted(function: Callable[[Any], Any], of: Closure) -> Closure:
    return lambda env: function(of(env))


def _compared(op: str, left: Closure, right: Closure) -> Closure:
    function = _COMPARE[op]
    # the library orders what is no number or text in its own way
    known = _FLAT if op in ("==", "!=") else (int, str, float)
    if isinstance(right, _Constant) and type(right.value) in known:
        value, kind = right.value, type(right.value)

        def measured(env: Env) -> bool:
            a = left(env)
            if type(a) is kind and a == a:  # noqa: PLR0124  NaN is the library's
                return function(a, value)
            raise Undecided

        return measured

    def run(env: Env) -> bool:
        a, b = left(env), right(env)
        if type(a) is type(b) and type(a) in known and a == a:  # noqa: PLR0124  NaN is the library's
            return function(a, b)
        raise Undecided

    return run


def _reckoned(op: str, left: Closure, right: Closure) -> Closure:
    function = _RECKON[op]
    if op == "*" and isinstance(right, _Constant) and type(right.value) is int:
        return _scaled(left, right.value)
    if op == "*" and isinstance(left, _Constant) and type(left.value) is int:
        return _scaled(right, left.value)

    def run(env: Env) -> Any:
        a, b = left(env), right(env)
        if type(a) is int and type(b) is int:
            # division is rounded towards zero there, downwards here: alike for what is not negative
            if op in "/%" and (a < 0 or b <= 0):
                raise Undecided
            found = function(a, b)
            if -_MOST <= found < _MOST:
                return found
        elif type(a) is float and type(b) is float and op in "+-*":
            return function(a, b)
        elif type(a) is str and type(b) is str and op == "+":
            return a + b
        raise Undecided

    return run


def _scaled(of: Closure, by: int) -> Closure:
    def run(env: Env) -> int:
        a = of(env)
        if type(a) is int and -_MOST <= (found := a * by) < _MOST:
            return found
        raise Undecided

    return run


def _both(left: Closure, right: Closure) -> Closure:
    def run(env: Env) -> bool:
        a = left(env)
        if a is False:
            return False
        if a is True:
            b = right(env)
            if type(b) is bool:
                return b
        raise Undecided

    return run


def _either(left: Closure, right: Closure) -> Closure:
    def run(env: Env) -> bool:
        a = left(env)
        if a is True:
            return True
        if a is False:
            b = right(env)
            if type(b) is bool:
                return b
        raise Undecided

    return run


def _negated(of: Closure) -> Closure:
    def run(env: Env) -> bool:
        a = of(env)
        if type(a) is bool:
            return not a
        raise Undecided

    return run


def _choice(condition: Closure, yes: Closure, no: Closure) -> Closure:
    def run(env: Env) -> Any:
        held = condition(env)
        if type(held) is bool:
            return yes(env) if held else no(env)
        raise Undecided

    return run


def _member(one: Closure, of: Closure) -> Closure:
    def run(env: Env) -> bool:
        a, held = one(env), of(env)
        if type(a) is str and type(held) is dict:
            return a in held
        if type(a) in (str, int) and type(held) is list and {type(a)}.issuperset(map(type, held)):
            return a in held
        raise Undecided

    return run


def _indexed(of: Closure, index: Closure) -> Closure:
    def run(env: Env) -> Any:
        held, at = of(env), index(env)
        if type(held) is list and type(at) is int and 0 <= at < len(held):
            return held[at]
        if type(held) is dict and type(at) is str and at in held:
            return held[at]
        raise Undecided

    return run


def _asked(function: Callable[[str, str], bool], of: Closure, argument: Closure) -> Closure:
    def run(env: Env) -> bool:
        a, b = of(env), argument(env)
        if type(a) is str and type(b) is str:
            return function(a, b)
        raise Undecided

    return run


def _looped(name: str, of: Closure, variable: str, body: Closure) -> Closure:
    maps, filters = name == "map", name == "filter"
    gathers = maps or filters
    # what the first item to say it ends a search with: `exists` is true then, `all` is false
    ends = None if gathers else name == "exists"

    def run(env: Env) -> Any:
        held = of(env)
        if type(held) is not list:
            raise Undecided
        if not held:
            return [] if gathers else not ends
        inner = dict(env)
        found: list[Any] = []
        for item in held:
            inner[variable] = item
            told = body(inner)
            if maps:
                found.append(told)
            elif type(told) is not bool:
                raise Undecided
            elif told is ends:
                return told
            elif filters and told:
                found.append(item)
        return found if gathers else not ends

    return run
