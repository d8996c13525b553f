"""Hyper-parameters of a class, read from its source text: nothing is imported, so `densecl show` answers at once."""

import ast
import builtins
import hashlib
import importlib.util
import inspect
import io
import sysconfig
import tokenize
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, NamedTuple

from densecl.errors import DenseCLError, UnknownNameError
from densecl.settings.catalogue import file_of

BASES = ("Strategy", "Plugin", "DenseDataset")  # what these classes define is not a method's own
PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
INSTALLED = {Path(sysconfig.get_path(name)) for name in PLACES} | {
    Path(__file__).parents[1]
}  # Python's, packages, ours
SILENT = ("noqa", "type:", "pyright:")  # comments for tools


class Argument(NamedTuple):
    """A hyper-parameter, or an argument of a constructor, as text; a `default` of None: a value is required."""

    name: str
    kind: str
    default: str | None
    comment: str = ""


def read_hyperparameters(reference: str, base: Path | None = None) -> list[Argument]:
    """The hyper-parameters of `module:Class` or `file.py:Class`; of a stock plugin, its constructor's arguments."""
    chain = list(_chain(*_class(reference, base)))
    if not any(_name(parent) in BASES for _, node in chain for parent in node.bases):
        return _constructor(chain)
    arguments: dict[str, Argument] = {}
    for path, node in reversed(chain):
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value is not None:
                name, kind = line.target.id, ast.unparse(line.annotation)
                if not name.startswith("_") and "ClassVar" not in kind:
                    lines = range(line.lineno, (line.end_lineno or line.lineno) + 1)
                    comment = " ".join(text for number in lines if (text := _comments(path).get(number)))
                    arguments[name] = Argument(name, _kind(line.annotation, path), ast.unparse(line.value), comment)
    return list(arguments.values())


def read_arguments(path: Path, parent: str) -> list[Argument]:
    """The constructor's arguments of the first class in a file that is derived from `parent`."""
    return _constructor([(path, _derived(path, parent))])


def read_presets(path: Path, parent: str) -> list[str]:
    """The names of the presets of that class."""
    lines = (line for line in _derived(path, parent).body if isinstance(line, ast.AnnAssign))
    values = (line.value for line in lines if ast.unparse(line.target) == "presets")
    return [ast.literal_eval(key) for value in values if isinstance(value, ast.Dict) for key in value.keys if key]


def _derived(path: Path, parent: str) -> ast.ClassDef:
    classes = (node for node in _tree(path).body if isinstance(node, ast.ClassDef))
    return next(node for node in classes if any(parent in map(_name, c.bases) for _, c in _chain(path, node)))


def _class(reference: str, base: Path | None) -> tuple[Path, ast.ClassDef]:
    """The file and the definition behind a reference."""
    place, _, name = reference.rpartition(":")
    path = file_of(reference, base) or _module_file(place, 0, Path("_").resolve())
    if path is None:
        raise DenseCLError(f"there is no module {place}", f"needed by '{reference}'")
    path, node = _find(path, name) or (path, None)
    if not isinstance(node, ast.ClassDef):
        classes = [node.name for node in _tree(path).body if isinstance(node, ast.ClassDef)]
        raise UnknownNameError(f"class in {place}", name, classes)
    return path, node


def _chain(path: Path, node: ast.ClassDef) -> Iterator[tuple[Path, ast.ClassDef]]:
    """A class and those it is derived from, below `BASES`, as far as their source is found."""
    yield path, node
    for parent in node.bases:
        place, definition = _find(path, _name(parent)) or (path, None)
        if isinstance(definition, ast.ClassDef) and definition.name not in BASES and definition is not node:
            yield from _chain(place, definition)


def _constructor(chain: list[tuple[Path, ast.ClassDef]]) -> list[Argument]:
    """The arguments of the nearest `__init__`, without `self`."""
    functions = ((path, line) for path, node in chain for line in node.body if isinstance(line, ast.FunctionDef))
    path, function = next((pair for pair in functions if pair[1].name == "__init__"), (Path(), None))
    if function is None:
        return []
    signature = function.args
    positional = [*signature.posonlyargs, *signature.args]
    defaults = [*[None] * (len(positional) - len(signature.defaults)), *signature.defaults, *signature.kw_defaults]
    return [
        Argument(a.arg, _kind(a.annotation, path) if a.annotation else "", None if d is None else ast.unparse(d))
        for a, d in list(zip([*positional, *signature.kwonlyargs], defaults, strict=True))[1:]
    ]


def _kind(node: ast.expr, path: Path) -> str:
    """An annotation in words: `int` for `Annotated[int, ...]`, a or b for a union and the choices of a `Literal`."""
    if isinstance(node, ast.BinOp):
        return f"{_kind(node.left, path)} or {_kind(node.right, path)}"
    if isinstance(node, ast.Subscript) and (outer := _name(node.value)) in ("Annotated", "Literal"):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _kind(parts[0], path) if outer == "Annotated" else " or ".join(map(_plain, parts))
    if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
        place, alias = _find(path, node.id) or (path, None)
        if isinstance(alias, ast.Assign):
            return _kind(alias.value, place)
    return _plain(node)


def _plain(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)


def _name(node: ast.expr) -> str:
    """`Strategy` for `Strategy` and `densecl.Strategy`."""
    return ast.unparse(node).rpartition(".")[2]


def _find(path: Path, name: str, seen: frozenset[Path] = frozenset()) -> tuple[Path, ast.stmt] | None:
    """Where a class or an alias is defined: in a file, or in a module that the file imports it from."""
    for node in _tree(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if (isinstance(node, ast.ClassDef) and node.name == name) or name in map(_name, targets):
            return path, node
    for node in [node for node in ast.walk(_tree(path)) if isinstance(node, ast.ImportFrom)]:
        for alias in node.names:
            if (alias.asname or alias.name) in (name, "*"):
                other = _module_file(node.module or "", node.level, path)
                wanted = name if alias.name == "*" else alias.name
                if other is not None and other not in seen and (definition := _find(other, wanted, seen | {path})):
                    return definition
    return None


def _module_file(module: str, level: int, path: Path) -> Path | None:
    """The source of a module that a file imports: beside the file, or installed. Nothing is imported."""
    places = [str(path.parents[max(level - 1, 0)])]
    specification = None
    for number, part in enumerate(module.split(".")):
        specification = PathFinder.find_spec(part, places)
        if specification is None and number == level == 0:
            specification = importlib.util.find_spec(part)  # of a top package it imports nothing
        if specification is None:
            return None
        places = list(specification.submodule_search_locations or ())
    origin = specification.origin if specification else None
    return Path(origin) if origin and origin.endswith(".py") else None


def local_modules(path: Path) -> list[Path]:
    """A Python file, and all modules that it imports, or those do, that are not installed packages, by their path."""
    modules, waiting = [path], [path]
    while waiting:
        for name, level in _imported(file := waiting.pop()):
            other = _module_file(name, level, file if level else path)
            if other is not None and other not in modules and _is_local(other, path):
                modules.append(other)
                waiting.append(other)
    return [path, *sorted(modules[1:])]


def file_of_class(cls: type) -> Path | None:
    """The Python file in which a class is written; None for one of a notebook."""
    try:
        path = Path(inspect.getfile(cls))
    except (OSError, TypeError):
        return None
    return path if path.suffix == ".py" and path.is_file() else None


def code_hash(cls: type) -> str:
    """Hash of what a class without a file does: its functions and plain values, with those of its bases."""
    digest = hashlib.sha256()
    for base in cls.__mro__:
        own = base.__module__.startswith(("densecl.", "builtins"))
        for name, value in sorted(vars(base).items()) if not own else ():
            code = getattr(value, "__code__", None)
            plain = isinstance(value, bool | int | float | str | tuple | None) and name not in ("__module__", "__doc__")
            digest.update(f"{name} {_does(code) if code else value if plain else ''}\n".encode())
    return digest.hexdigest()


def _does(code: Any) -> str:
    """Instructions and constants of a function, without its place in a notebook."""
    constants = [_does(constant) if hasattr(constant, "co_code") else repr(constant) for constant in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {constants}"


def _imported(path: Path) -> Iterator[tuple[str, int]]:
    """Name and level of each module that a file imports, packages before what is in them."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names, level = [alias.name for alias in node.names], 0
        elif isinstance(node, ast.ImportFrom):
            base, level = f"{node.module}." if node.module else "", node.level
            names = [base + alias.name for alias in node.names]  # what is imported may be a module itself
        else:
            continue
        parts = [name.split(".") for name in names]
        yield from {(".".join(each[:count]), level) for each in parts for count in range(1, len(each) + 1)}


def _is_local(file: Path, path: Path) -> bool:
    """True for a module that is neither ours nor installed, unless it is installed together with `path`."""
    installed = any(file.is_relative_to(folder) for folder in INSTALLED)
    return not installed or (file.is_relative_to(path.parent) and path.parent not in INSTALLED)


@cache
def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise DenseCLError(f"{path}{line} cannot be read: {type(error).__name__}: {error}") from error


@cache
def _comments(path: Path) -> dict[int, str]:
    """Comments that follow code, by line."""
    tokens = tokenize.tokenize(io.BytesIO(path.read_bytes()).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {k: text for k, text in comments.items() if lines[k - 1].strip()[0] != "#" and not text.startswith(SILENT)}
