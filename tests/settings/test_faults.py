"""What pydantic refuses is told in words of TOML, without a dump of the section and without classes of Python."""

from pathlib import Path

import pytest

from densecl.errors import SettingError
from densecl.settings.arguments import check_arguments, resolve
from densecl.settings.recipe import SECTIONS, build
from densecl.strategies.base import Strategy

CASES = [
    ("training", {"cache_features": True}, "'training': cache_features needs a frozen encoder: freeze=encoder or"),
    ("training", {"scale": (2, 1), "batch": 4}, "'training': scale must be (low, high)"),
    ("training", {"milestones": (0.5,)}, "'training': milestones need power=0: the polynomial of power 0.9 lowers the"),
    ("training", {"milestones": (0.7, 0.5), "power": 0}, "'training': milestones must rise: [0.7, 0.5]"),
    (
        "training",
        {"milestones": (0.5, 15), "power": 0},
        "'training.milestones.1' cannot be 15: input should be less than 1",
    ),
    ("training", {"lr": {"step0": 0.1}}, "'training.lr': input should be a valid number"),
    ("training", {"scale": 5}, "'training.scale' cannot be 5: write a list"),
    ("training", {"scale": (1, 2, 3)}, "'training.scale' cannot be (1, 2, 3): the list should have at most 2 items"),
    ("training", {"later": 5}, "'training.later' cannot be 5: write a table of keys and values"),
    ("training", {"parts": {"decoder": [1]}}, "'training.parts.decoder' cannot be [1]: write a table of keys"),
    ("stream", {"groups": 5}, "'stream.groups' cannot be 5: write a table of keys and values"),
    ("evaluation", {"batch": 2**70}, "'evaluation.batch' cannot be 1180591620717411303424: input should be less than"),
    ("stream", {"order": -1}, "'stream.order' cannot be -1: input should be greater than or equal to 0"),
    ("stream", {"order": "abc"}, "'stream.order' cannot be 'abc': write a list"),
    ("data", {"root": 5}, "'data.root' cannot be 5: write a path"),
]


@pytest.mark.parametrize(("section", "values", "told"), CASES)
def test_a_section_is_refused_by_key_and_reason(section, values, told):
    with pytest.raises(SettingError) as refusal:
        build(SECTIONS[section], values, section)
    assert str(refusal.value).startswith(told)


class Own(Strategy):
    """A method with a list and a path."""

    layers: tuple[int, ...] = (1, 2)
    bank: Path = Path("bank")


@pytest.mark.parametrize(
    ("values", "told"),
    [({"layers": 5}, "own.layers cannot be 5: write a list"), ({"bank": 5}, "own.bank cannot be 5: write a path")],
)
def test_a_hyper_parameter_is_refused_by_key_and_reason(values, told):
    with pytest.raises(SettingError) as refusal:
        resolve(Own, Strategy, values, "own")
    assert str(refusal.value) == told


def test_an_argument_is_refused_by_key_and_reason():
    class Small:
        def __init__(self, sizes: dict[str, int]):
            pass

    with pytest.raises(SettingError) as refusal:
        check_arguments(Small, {"sizes": 5}, "small")
    assert str(refusal.value) == "small has sizes=5. write a table of keys and values"
