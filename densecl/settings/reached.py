"""The part of a user's class that the first step can reach: its hash, and the attributes it looks at.

Read from the source text. Left out are comments, docstrings, hooks that are called from step 1 on with what they alone
call, and what else the file defines. Where code looks names up by text, all of the file counts.
"""

import ast
import hashlib
import inspect
from collections.abc import Container, Iterable
from pathlib import Path
from typing import NamedTuple

from densecl.settings.source import local_modules

LATER = frozenset({"regulariser"})  # hooks that no first step calls
BY_TEXT = frozenset({"getattr", "setattr", "vars", "globals", "locals", "eval", "exec", "__import__", "__dict__"})
BASES = ("densecl.strategies.base", "builtins")


class Reached(NamedTuple):
    """Code of a class that the first step can reach."""

    digest: str
    names: frozenset[str] | None  # attributes and names in it; None: any


def reached(cls: type) -> Reached:
    """Find what the first step reaches of a class in a user's file, its bases and the modules that the file imports.

    Raises:
        OSError: the source is not there.
    """
    path = Path(inspect.getfile(cls))
    own, *others = local_modules(path)
    tree = ast.parse(own.read_bytes())
    digest = hashlib.sha256()
    for other in others:
        digest.update(f"\n{other.name}\n".encode() + other.read_bytes())
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    pieces: list[ast.AST] = [node for node in tree.body if node not in defined.values() and not _is_text(node)]
    chain = [base for base in cls.__mro__ if _is_in(base, path, defined)]
    hooks = {name for base in cls.__mro__ if base not in chain for name in vars(base)}
    pieces += _class_pieces([defined[base.__name__] for base in chain], pieces, hooks - LATER)
    waiting, used = list(pieces), {base.__name__ for base in chain}
    while waiting:  # what they name of the file, and so on
        for name in sorted(_names(waiting.pop()) & defined.keys() - used):
            used.add(name)
            pieces.append(defined[name])
            waiting.append(defined[name])
    names = frozenset(_names_in([*pieces, *(ast.parse(other.read_bytes()) for other in others)]))
    if names & BY_TEXT:
        digest.update(own.read_bytes())
        return Reached(digest.hexdigest()[:16], None)
    for piece in pieces:
        digest.update(ast.dump(_bare(piece)).encode())
    for base in cls.__mro__:  # ours, such as MiB: all that they name
        if base.__module__.startswith("densecl.") and base.__module__ not in BASES:
            names |= _names(ast.parse(Path(inspect.getfile(base)).read_bytes()))
    return Reached(digest.hexdigest()[:16], names)


def _is_in(cls: type, path: Path, defined: dict[str, ast.FunctionDef | ast.ClassDef]) -> bool:
    return cls.__module__ != "builtins" and cls.__name__ in defined and Path(inspect.getfile(cls)) == path


def _class_pieces(
    classes: Iterable[ast.FunctionDef | ast.ClassDef], module: Iterable[ast.AST], hooks: Container[str]
) -> list[ast.AST]:
    """The statements of classes, and their methods but those that `LATER` alone calls."""
    lines = [line for node in classes for line in node.body if not _is_text(line)]
    methods = [line for line in lines if isinstance(line, ast.FunctionDef)]
    rest: list[ast.AST] = [line for line in lines if not isinstance(line, ast.FunctionDef | ast.AnnAssign)]
    rest += [part for node in classes if isinstance(node, ast.ClassDef) for part in (*node.bases, *node.decorator_list)]
    named_later = _names_in(method for method in methods if method.name in LATER)
    chosen = [m for m in methods if m.name in hooks or (m.name not in LATER and m.name not in named_later)]
    while more := [m for m in methods if m not in chosen and m.name in _names_in([*chosen, *rest, *module])]:
        chosen += more
    named = _names_in([*chosen, *rest, *module])  # of hyper-parameters, those that it looks at
    declared = [line for line in lines if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) in named]
    return [*rest, *declared, *chosen]


def _names_in(nodes: Iterable[ast.AST]) -> set[str]:
    return set().union(*map(_names, nodes))


def _names(node: ast.AST) -> set[str]:
    """All names and attributes in code."""
    result = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}
    return result | {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)}


def _bare(node: ast.AST) -> ast.AST:
    """Code without docstrings."""
    for part in ast.walk(node):
        body = getattr(part, "body", None)
        if isinstance(body, list):
            part.body = [line for line in body if not _is_text(line)] or [ast.Pass()]  # type: ignore[attr-defined]
    return node


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
