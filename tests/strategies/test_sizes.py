"""The house's rule: a reader who knows a method's paper reads its file to the end."""

import importlib.util
from pathlib import Path

from densecl.settings.catalogue import strategy_recipes
from densecl.strategies import tools

LINES = 120  # with docstrings and pure functions
LONGER = {"densecl.strategies.deepinversion": "it also makes, keeps and restores the images that it replays"}


def test_the_file_of_a_method_or_of_a_tool_has_at_most_120_lines():
    modules = {recipe.class_.partition(":")[0] for recipe in strategy_recipes().values()}
    modules |= {f"densecl.strategies.tools.{path.stem}" for path in Path(tools.__path__[0]).glob("*.py")}
    lengths = {}
    for module in modules:
        if module.startswith("densecl."):
            spec = importlib.util.find_spec(module)
            assert spec is not None
            assert spec.origin is not None
            lengths[module] = len(Path(spec.origin).read_text(encoding="utf-8").splitlines())
    assert len(lengths) > 30
    assert {module: length for module, length in lengths.items() if length > LINES}.keys() == LONGER.keys()
