"""The grammar that names everything: `name(key=value, ...)`, joined by `+` for plugins.

    spec    = call { "+" call }
    call    = name [ "(" [ key "=" value { "," key "=" value } [ "," ] ] ")" ]
    name    = letters, digits and . _ - / : ~, or quoted text
    value   = integer | float | true | false | none | word | quoted text | "(" values ")" | "[" values "]"

Values are literals: nothing is ever evaluated. `none`, `true` and `false` may start with a capital letter.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from densecl.errors import SpecError

Value: TypeAlias = "bool | int | float | str | tuple[Value, ...] | None"

NAME = re.compile(r"[\w.\-/:~]+")
KEY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
WORD = re.compile(r"[^\s,()\[\]'\"=]+")
QUOTED = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)
INTEGER = re.compile(r"[+-]?\d+(?:_\d+)*", re.ASCII)
FLOAT = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?", re.ASCII)
CONSTANTS: dict[str, bool | None] = {"none": None, "true": True, "false": False}
CONSTANTS |= {word.capitalize(): value for word, value in CONSTANTS.items()}
MAX_DEPTH = 16
MAX_DIGITS = 300  # the range of a float, far below the length at which Python refuses to read integers


@dataclass(frozen=True)
class Call:
    """A name with its arguments: `mib(distillation=5)` is `Call("mib", {"distillation": 5})`."""

    name: str
    arguments: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return format_call(self)


def parse(text: str) -> tuple[Call, ...]:
    """All calls of `text`: `mib(distillation=5)+replay(memory=100)` has two; SpecError names a column."""
    reader = _Reader(text)
    calls = [reader.call()]
    while reader.accept("+"):
        calls.append(reader.call())
    reader.end("'+' or the end")
    return tuple(calls)


def parse_one(text: str, kind: str) -> Call:
    """The only call of `text`; `kind` ("benchmark", "backbone") is the word in the error."""
    calls = parse(text)
    if len(calls) != 1:
        joined = f"a {kind} is one name, and {_show(text)} joins {len(calls)}"
        raise SpecError(joined, "leave out what follows the first '+'")
    return calls[0]


def parse_value(text: str) -> Value:
    """A literal: `5`, `1e-3`, `true`, `none`, `'quoted text'`, a bare word, `(1, 2)` or `[1, 2]`; else SpecError."""
    reader = _Reader(text)
    value = reader.value()
    reader.end("the end of the value")
    return value


def parse_assignment(text: str) -> tuple[str, Value]:
    """Key and value of `strategy.distillation=5`, as given to `--set`; SpecError if `text` is no assignment."""
    key, _, value = text.partition("=")
    if value.lstrip().startswith("{"):
        advice = f"set each of its keys, as in {key.strip()}.KEY=VALUE"
        raise SpecError(f"cannot read {_show(text)}: a value cannot be a table", advice)
    reader = _Reader(text)
    assignment = reader.assignment()
    reader.end("the end of the value")
    return assignment


def format_spec(calls: Sequence[Call]) -> str:
    """Canonical text of a spec: `parse(format_spec(calls))` gives `calls` back."""
    return "+".join(format_call(call) for call in calls)


def format_call(call: Call) -> str:
    """Canonical text of a call, keys sorted."""
    name = call.name if NAME.fullmatch(call.name) else _quote(call.name)
    if not call.arguments:
        return name
    return f"{name}({', '.join(f'{key}={format_value(value)}' for key, value in sorted(call.arguments.items()))})"


def format_value(value: Value) -> str:
    """Canonical text of a value; text that would read as something else is quoted."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"({', '.join(format_value(item) for item in value)}{',' if len(value) == 1 else ''})"
    if isinstance(value, str):
        bare = WORD.fullmatch(value) and value not in CONSTANTS and _number(value) is None
        return value if bare else _quote(value)
    return repr(value)


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _show(text: str, limit: int = 60) -> str:
    """`text` for a message: quoted, on one line, shortened."""
    line = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return f"'{line}'" if len(line) <= limit else f"'{line[:limit]}...'"


class _Reader:
    """Recursive descent over one text; `position` is the next character."""

    def __init__(self, text: str):
        self.text = text
        self.position = 0

    def call(self) -> Call:
        name = self.name()
        arguments: dict[str, Value] = {}
        if self.accept("("):
            while not self.accept(")"):
                start = self.position
                key, value = self.assignment()
                if key in arguments:
                    self.position = start
                    self.fail(f"another key ('{key[:40]}' was given before)")
                arguments[key] = value
                if not self.accept(","):
                    self.expect(")", "',' or ')'")
                    break
        return Call(name, arguments)

    def name(self) -> str:
        self.skip()
        quoted = self.quoted()
        if quoted is not None:
            if not quoted:
                self.fail("a name between the quotes")
            return quoted
        return self.match(NAME, "a name")

    def assignment(self) -> tuple[str, Value]:
        self.skip()
        key = self.match(KEY, "key=value")
        self.expect("=", f"'=' after the key '{key[:40]}'")
        return key, self.value()

    def value(self, depth: int = 0) -> Value:
        self.skip()
        for opening, closing in (("(", ")"), ("[", "]")):
            if self.accept(opening):
                return self.values(closing, depth + 1)
        quoted = self.quoted()
        if quoted is not None:
            return quoted
        start = self.position
        word = self.match(WORD, "a value")
        if word in CONSTANTS:
            return CONSTANTS[word]
        number = _number(word)
        if number is not None and (len(word) > MAX_DIGITS or not math.isfinite(number)):
            self.position = start
            self.fail("a smaller number")
        return word if number is None else number

    def values(self, closing: str, depth: int) -> tuple[Value, ...]:
        if depth > MAX_DEPTH:
            self.fail(f"at most {MAX_DEPTH} nested brackets")
        items: list[Value] = []
        while not self.accept(closing):
            items.append(self.value(depth))
            if not self.accept(","):
                self.expect(closing, f"',' or '{closing}'")
                break
        return tuple(items)

    def quoted(self) -> str | None:
        if self.text[self.position : self.position + 1] not in ("'", '"'):
            return None
        body = self.match(QUOTED, "a closing quote")[1:-1]
        return re.sub(r"\\([\\'\"])", r"\1", body)

    def skip(self) -> None:
        while self.text[self.position : self.position + 1].isspace():
            self.position += 1

    def accept(self, character: str) -> bool:
        self.skip()
        accepted = self.text.startswith(character, self.position)
        self.position += accepted
        return accepted

    def expect(self, character: str, wanted: str) -> None:
        if not self.accept(character):
            self.fail(wanted)

    def match(self, pattern: re.Pattern[str], wanted: str) -> str:
        match = pattern.match(self.text, self.position)
        if match is None:
            self.fail(wanted)
        self.position = match.end()
        return match.group()

    def end(self, wanted: str) -> None:
        self.skip()
        if self.position < len(self.text):
            self.fail(wanted)

    def fail(self, wanted: str) -> NoReturn:
        if not self.text.strip():
            raise SpecError(f"expected {wanted}, got empty text")
        rest = self.text[self.position :]
        instead = _show(rest, 20) if rest else "the end"
        split = rest and self.text[self.position - 1].isspace()  # a blank inside a name or a value
        hint = "quote text that holds blanks: key='a b'" if split else "the form is name(key=value, ...)+plugin"
        raise SpecError(
            f"cannot read {_show(self.text)}: expected {wanted} at column {self.position + 1}, found {instead}", hint
        )


def _number(word: str) -> int | float | None:
    if INTEGER.fullmatch(word):
        return int(word[:MAX_DIGITS].rstrip("_"))
    return float(word) if FLOAT.fullmatch(word) else None
