"""Hyper-parameters: values are checked by annotation, and the base's own names are refused."""

from typing import Literal

import pytest

from densecl import Plugin, Strategy
from densecl.check.check import check_method
from densecl.errors import SettingError, UnknownNameError
from densecl.settings.arguments import check_arguments, hyperparameters, owned_names, resolve
from densecl.settings.catalogue import load_class, strategy_recipes
from densecl.settings.recipe import SECTIONS, RunSettings, build


class Free(Strategy):
    weight: float = 2.0
    mode: str = "a"


def test_defaults_are_overlaid_by_values_of_the_annotated_type():
    assert resolve(Free, Strategy, {"weight": 3}, "free") == {"weight": 3.0, "mode": "a"}
    with pytest.raises(UnknownNameError, match="did you mean 'weight'"):
        resolve(Free, Strategy, {"weigth": 3}, "free")
    with pytest.raises(SettingError, match=r"free\.weight cannot be 'much'"):
        resolve(Free, Strategy, {"weight": "much"}, "free")


# set in __init__, set in another method, a property, a method, an annotation without a value
@pytest.mark.parametrize("name", ["step", "iterations", "scenario", "device", "teacher", "task", "regulariser"])
def test_names_of_the_base_are_refused_as_hyper_parameters_of_a_strategy(name):
    mine = type("Mine", (Strategy,), {"__annotations__": {"weight": float, name: int}, "weight": 1.0, name: 3})
    with pytest.raises(SettingError, match=f"Mine.{name} cannot be a hyper-parameter: Strategy uses this name itself"):
        resolve(mine, Strategy, {}, "mine")


@pytest.mark.parametrize("name", ["loss", "notes", "before_epoch"])
def test_names_of_the_base_are_refused_as_hyper_parameters_of_a_plugin(name):
    mine = type("Mine", (Plugin,), {"__annotations__": {name: int}, name: 3})
    with pytest.raises(SettingError, match=f"Mine.{name} cannot be a hyper-parameter: Plugin uses this name itself"):
        resolve(mine, Plugin, {}, "mine")


def test_no_method_of_the_catalogue_uses_a_name_of_its_base():
    for recipe in strategy_recipes().values():
        cls = load_class(recipe.class_, recipe.source.parent)
        for base in (Strategy, Plugin):
            if issubclass(cls, base):
                assert not owned_names(base) & hyperparameters(cls, base).keys()


def test_all_attributes_of_a_strategy_that_has_trained_are_its_own_names(trained_strategy):
    assert set(vars(trained_strategy)) <= owned_names(Strategy)


@pytest.fixture(scope="module")
def trained_strategy():
    from densecl.check.tiny import tiny_loop, tiny_scenario
    from densecl.runner.methods import parse_method

    loop = tiny_loop(parse_method("finetune"), tiny_scenario())
    loop.train(loop.scenario.experiences[:1])
    return loop.strategy


def test_check_names_the_attribute(tmp_path):
    (tmp_path / "mine.py").write_text("from densecl import Strategy\nclass Mine(Strategy):\n    step: int = 3\n")
    (finding,) = check_method(f"{tmp_path / 'mine.py'}:Mine")
    assert "Mine.step cannot be a hyper-parameter" in finding


class Worded(Strategy):
    mode: Literal["none", "all"] = "all"
    student: str = "none"
    limit: int | None = 3
    size: int = 1


def test_none_is_a_word_where_nothing_is_refused():
    given = {"mode": None, "student": None, "limit": None}
    assert resolve(Worded, Strategy, given, "worded") == {"mode": "none", "student": "none", "limit": None, "size": 1}
    with pytest.raises(SettingError, match=r"worded\.size cannot be None"):
        resolve(Worded, Strategy, {"size": None}, "worded")
    names = dict.fromkeys(("benchmark", "strategy", "backbone"), "x")
    settings = build(RunSettings, {**names, "training": {"augmentation": None}})
    assert settings.training.augmentation == "none"
    with pytest.raises(SettingError, match=r"'training\.batch' cannot be None"):
        build(SECTIONS["training"], {"batch": None, "augmentation": None}, "training")
    with pytest.raises(SettingError, match=r"'training\.batch' cannot be -1"):
        build(SECTIONS["training"], {"batch": -1, "augmentation": None}, "training")
    with pytest.raises(SettingError, match=r"worded\.size cannot be 'x'"):
        resolve(Worded, Strategy, {"mode": None, "size": "x"}, "worded")


class Network:
    def __init__(self, weights: str = "timm", norm: str | None = "batch", width: int = 4):
        pass


def test_none_is_a_word_among_the_arguments_of_a_constructor():
    assert check_arguments(Network, {"weights": None, "norm": None}, "n") == {"weights": "none", "norm": None}
    with pytest.raises(SettingError, match="n has width=None"):
        check_arguments(Network, {"width": None}, "n")
