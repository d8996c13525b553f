"""Hyper-parameters read from source text are those of the imported class."""

import ast
import hashlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from densecl.errors import DenseCLError, UnknownNameError
from densecl.models import backbone_in
from densecl.settings.arguments import hyperparameters
from densecl.settings.catalogue import backbones, load_class, source_hash, strategy_recipes
from densecl.settings.source import Argument, local_modules, read_arguments, read_hyperparameters
from densecl.strategies.base import Plugin, Strategy

RECIPES = strategy_recipes()


@pytest.mark.parametrize("name", RECIPES)
def test_names_and_defaults_are_those_of_the_class(name):
    reference, folder = RECIPES[name].class_, RECIPES[name].source.parent
    cls = load_class(reference, folder)
    if issubclass(cls, Strategy | Plugin):
        stop = Strategy if issubclass(cls, Strategy) else Plugin
        expected = {key: default for key, (_, default) in hyperparameters(cls, stop).items()}
    else:
        expected = {p.name: p.default for p in inspect.signature(cls).parameters.values()}
    read = {
        a.name: inspect.Parameter.empty if a.default is None else a.default for a in read_hyperparameters(reference)
    }
    assert list(read) == list(expected)
    for key, text in read.items():
        assert text is expected[key] or ast.literal_eval(text) == expected[key]


@pytest.mark.parametrize("name", backbones())
def test_arguments_of_a_backbone_are_those_of_its_signature(name):
    parameters = inspect.signature(backbone_in(name)).parameters.values()
    read = read_arguments(Path(inspect.getfile(backbone_in(name))), "Backbone")
    assert [(a.name, ast.literal_eval(a.default or "")) for a in read] == [(p.name, p.default) for p in parameters]


OWN = """
from typing import Annotated, ClassVar, Literal
from pydantic import Field
import densecl
from helper import Base, Share
Choice = Literal["a", "b"]
class Mine(Base):
    kinds: ClassVar[frozenset] = frozenset()
    first: int = 5  # replaced
    share: Share = 0.5  # of all
    choice: Choice | None = (
        "a"  # which one
    )
    _hidden: int = 1
    bare: int
    weights: tuple[int, ...] = (1, 2)  # noqa: X
"""
HELPER = """
from typing import Annotated
from pydantic import Field
import densecl
raise RuntimeError("imported")
Share = Annotated[float, Field(ge=0)]
class Base(densecl.Strategy):
    first: Annotated[int, Field(ge=1)] = 1  # of the base
    # a comment of its own
    second: "bool" = True
"""


def test_a_users_class_is_read_with_its_bases_aliases_and_comments_and_never_imported(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    (tmp_path / "helper.py").write_text(HELPER)
    assert read_hyperparameters("mine.py:Mine", tmp_path) == [
        Argument("first", "int", "5", "replaced"),
        Argument("second", "bool", "True"),
        Argument("share", "float", "0.5", "of all"),
        Argument("choice", "a or b or None", "'a'", "which one"),
        Argument("weights", "tuple[int, ...]", "(1, 2)"),
    ]
    assert "helper" not in sys.modules


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("class Other:\n    pass\n")
    with pytest.raises(UnknownNameError, match=r"'Mine'.*known: Other"):
        read_hyperparameters("mine.py:Mine", tmp_path)
    with pytest.raises(DenseCLError, match="there is no file"):
        read_hyperparameters("absent.py:Mine", tmp_path)
    with pytest.raises(DenseCLError, match="there is no module absent_module"):
        read_hyperparameters("absent_module.sub:Mine")
    (tmp_path / "broken.py").write_text("x = 1\nclass Mine(:\n")
    with pytest.raises(DenseCLError, match=r"broken\.py:2 cannot be read: SyntaxError"):
        read_hyperparameters("broken.py:Mine", tmp_path)


def test_modules_that_import_all_of_each_other_end_the_search(tmp_path):
    (tmp_path / "one.py").write_text("from two import *\n")
    (tmp_path / "two.py").write_text("from one import *\n")
    with pytest.raises(UnknownNameError):
        read_hyperparameters("one.py:Mine", tmp_path)


def test_the_command_line_shows_a_class_of_ones_own(tmp_path):
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "mine.toml").write_text('name = "mine"\nclass = "mine.py:Mine"\nsummary = "own"\n')
    (tmp_path / "strategies" / "mine.py").write_text(OWN)
    (tmp_path / "strategies" / "helper.py").write_text(HELPER)
    words = [sys.executable, "-m", "densecl", "show", "mine", "--catalogue", str(tmp_path)]
    shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "  share = 0.5  (float)  of all" in shown


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "strategies").mkdir()
    text = '\ufeffname = "mine"\nclass = "mine.py:Mine"\nsummary = "own"\n'
    (tmp_path / "strategies" / "mine.toml").write_text(text, encoding="utf-8")
    assert strategy_recipes(tmp_path)["mine"].summary == "own"


HELPERS = {
    "mine.py": "import torch\nfrom helper import K\n\nclass Mine:\n    def late(self):\n        import parts.deep\n",
    "helper.py": "import numpy\nfrom parts import other\nK = 1\n",
    "parts/__init__.py": "",
    "parts/deep.py": "from . import beside\nfrom ..stray import nothing\n",
    "parts/beside.py": "import mine\n",
    "parts/other.py": "",
    "unused.py": "",
}


@pytest.fixture
def helpers(tmp_path):
    (tmp_path / "parts").mkdir()
    for name, text in HELPERS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_local_modules_are_those_that_a_file_imports_however_deep(helpers):
    found = {str(path.relative_to(helpers)) for path in local_modules(helpers / "mine.py")}
    assert found == set(HELPERS) - {"unused.py"}


@pytest.mark.parametrize("name", ["mine.py", "helper.py", "parts/deep.py", "parts/beside.py"])
def test_an_edit_of_any_local_module_makes_another_source(helpers, name):
    cls = load_class(f"{helpers}/mine.py:Mine")
    before = source_hash(cls)
    (helpers / "unused.py").write_text("x = 1\n")
    assert source_hash(cls) == before
    (helpers / name).write_text(HELPERS[name] + "# edited\n")
    assert source_hash(cls) != before


def test_a_file_without_local_modules_is_known_by_its_bytes_alone(tmp_path):
    path = tmp_path / "alone.py"
    path.write_text("import torch\n\nclass Alone:\n    pass\n")
    assert source_hash(load_class(f"{path}:Alone")) == hashlib.sha256(path.read_bytes()).hexdigest()[:12]
