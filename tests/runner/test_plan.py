import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densecl.errors import DenseCLError, RecipeError, SettingError, SpecError, UnknownNameError
from densecl.runner.plan import make_plan
from densecl.settings.catalogue import benchmark_recipe
from densecl.settings.overlay import merge
from densecl.settings.recipe import BenchmarkRecipe, RunSettings, TrainingSettings, read_recipe

HERE = Path(__file__)


def plan(benchmark="shapes15-5", strategy="mib", **options):
    return make_plan(benchmark, strategy, device="cpu", **options)


def test_the_code_holds_the_recipe_of_the_reference_papers():
    training = RunSettings(benchmark="b", strategy="s", backbone="n").training
    assert (training.epochs, training.batch, training.lr, training.later.lr) == (30, 24, 0.01, 0.001)
    assert (training.optimizer, training.momentum, training.weight_decay, training.power) == ("sgd", 0.9, 1e-4, 0.9)
    assert (training.crop, training.augmentation) == (512, "reference")


def test_a_seed_of_the_class_order_is_not_negative():
    assert plan(assignments=["stream.order=0"]).settings.stream.order == 0
    with pytest.raises(SettingError, match=r"'stream\.order' cannot be -1"):
        plan(assignments=["stream.order=-1"])


def test_rates_and_lengths_change_after_step_0():
    training = TrainingSettings(iterations=1000, lr=0.3, later={"lr": 0.2, "iterations": 100})
    assert [training.rate(k) for k in (0, 1, 2)] == [0.3, 0.2, 0.2]
    assert [training.length(k) for k in (0, 1)] == [(None, 1000), (None, 100)]
    assert TrainingSettings(epochs=30, later={"epochs": 10}).length(3) == (10, None)
    assert TrainingSettings(epochs=30).length(3) == (30, None)


def test_a_length_given_above_replaces_all_lengths_below():
    below = {"training": {"iterations": 1000, "lr": 1, "later": {"iterations": 300, "lr": 2}}}
    assert merge(below, {"training": {"epochs": 2}})["training"] == {"lr": 1, "later": {"lr": 2}, "epochs": 2}
    later = merge(below, {"training": {"later": {"epochs": 2}}})["training"]
    assert later == {"iterations": 1000, "lr": 1, "later": {"lr": 2, "epochs": 2}}
    assert below["training"]["later"] == {"iterations": 300, "lr": 2}


def test_later_sources_win_over_earlier_ones():
    assert plan().settings.training.later.iterations == 300
    assert plan("shapes15-5s").settings.training.later.iterations == 100
    assert plan(strategy="joint").settings.training.iterations == 1300
    assert plan(backbone="unet(width=4)").settings.training.lr == 0.002
    assert plan("shapes15-5(lr=0.5)").settings.training.lr == 0.5
    assert plan("shapes15-5(lr=0.5)", assignments=["training.lr=0.25"]).settings.training.lr == 0.25


@pytest.mark.parametrize("name", ["shapes10-6-4s", "voc15_5", "shapes15-5x"])
def test_a_split_that_is_none_is_answered_with_the_grammar(name):
    with pytest.raises(
        SettingError, match=rf"benchmark '{name}': '.*' is not a split\. .*write A-B .* or A-B-C .*, such as "
    ):
        benchmark_recipe(name)


def test_any_split_of_a_family_works():
    assert [len(step) for step in plan("shapes4-8").steps] == [4, 8, 8]
    assert [len(step) for step in plan("shapes10-6-4").steps] == [10, 6, 4]


def test_values_reach_strategy_plugins_and_backbone():
    made = plan(
        strategy="mib(distillation=5)+replay",
        backbone="bisenet(encoder=mini,weights=none)",
        assignments=["replay.memory=7", "backbone.width=32"],
    )
    assert made.settings.strategy_values == {"distillation": 5.0}
    assert made.settings.plugins["replay"]["memory"] == 7
    assert made.settings.backbone_values["width"] == 32
    assert made.method.name == "mib+replay"


def test_the_hash_leaves_out_what_must_not_change_the_numbers(tmp_path):
    base = plan()
    assert plan(workers=2).hash == base.hash
    assert plan(output=tmp_path).hash == base.hash
    different = [plan(seed=1), plan(strategy="lwf"), plan(assignments=["training.lr=0.1"]), plan("shapes15-5s")]
    assert len({base.hash, *(p.hash for p in different)}) == 5


def test_an_edited_method_is_another_run(tmp_path):
    hashes = set()
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        text = f"from densecl import Strategy\nclass Mine(Strategy):\n    weight: float = 1.0\n    # {number}\n"
        (folder / "mine.py").write_text(text)
        hashes.add(plan(strategy=f"{folder}/mine.py:Mine").hash)
    assert len(hashes) == 2


def test_where_a_method_lies_tells_no_runs_apart(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("from densecl import Strategy\nclass Mine(Strategy):\n    weight: float = 1.0\n")
    monkeypatch.chdir(tmp_path)
    near, far = (plan(strategy=f"{folder}mine.py:Mine") for folder in ("", f"{tmp_path}/"))
    assert near.hash == far.hash
    assert near.folder.parts[-4:] == far.folder.parts[-4:]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"benchmark": "shape15-5"}, UnknownNameError, ["shape15-5", "shapes15-5"]),
        ({"benchmark": "voc"}, UnknownNameError, ["'voc'"]),
        ({"benchmark": "shapes15-7"}, SettingError, ["15-7", "20"]),
        ({"benchmark": "shapes15-5(seting=disjoint)"}, UnknownNameError, ["seting", "setting"]),
        ({"benchmark": "shapes15-5(setting=disjont)"}, SettingError, ["stream.setting", "disjont", "disjoint"]),
        ({"strategy": "mibb"}, UnknownNameError, ["mibb", "'mib'"]),
        ({"strategy": "mib+lwf"}, SpecError, ["mib and lwf"]),
        ({"strategy": "replay"}, SpecError, ["finetune+replay"]),
        ({"strategy": "mib+replay+replay"}, SpecError, ["replay twice"]),
        ({"strategy": "mib(distilation=5)"}, UnknownNameError, ["distilation", "distillation"]),
        ({"strategy": "mib(distillation=much)"}, SettingError, ["mib.distillation", "much"]),
        ({"strategy": "mib+si(si_lambada=1)"}, UnknownNameError, ["si_lambada", "si_lambda"]),
        ({"strategy": "mib("}, SpecError, ["mib("]),
        ({"backbone": "bisnet"}, UnknownNameError, ["bisnet", "bisenet"]),
        ({"backbone": "bisenet(encodr=mini)"}, UnknownNameError, ["encodr", "encoder"]),
        ({"assignments": ["training.epoch=2"]}, SettingError, ["training.epoch", "training.epochs"]),
        ({"assignments": ["training.later.lrr=2"]}, SettingError, ["training.later.lrr", "training.later.lr"]),
        ({"assignments": ["training.epochs=two"]}, SettingError, ["training.epochs", "two"]),
        ({"assignments": ["training.lr=-1"]}, SettingError, ["training.lr", "-1"]),
        ({"assignments": ["trainng.lr=1"]}, UnknownNameError, ["trainng", "training"]),
        ({"assignments": ["lr=1"]}, SettingError, ["'lr'", "SECTION"]),
        ({"assignments": ["training.lr"]}, SpecError, ["training.lr"]),
        ({"precision": "fp8"}, SettingError, ["training.precision", "fp8"]),
        ({"validation": 1.5}, SettingError, ["data.validation", "1.5"]),
        ({"catalogue": Path("nowhere")}, RecipeError, ["nowhere"]),
        ({"strategy": "nowhere.py:Mine"}, DenseCLError, ["nowhere.py"]),
    ],
)
def test_bad_input_is_one_line_that_names_it(options, error, words):
    with pytest.raises(error) as caught:
        plan(**{"benchmark": "shapes15-5", "strategy": "mib", **options})
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nothing_of_that_name\n", ["mine.py:1", "nothing_of_that_name"]),
        ("x = 1\nclass Mine(:\n", ["mine.py:2"]),
        ("class Other:\n    pass\n", ["Mine", "Other"]),
        ("class Mine:\n    pass\n", ["neither a strategy nor a plugin"]),
    ],
)
def test_a_method_file_that_cannot_be_used_is_named_with_its_line(tmp_path, text, words):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(DenseCLError) as caught:
        plan(strategy=f"{tmp_path}/mine.py:Mine")
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("family = 'x'\n", ["summary", "missing"]),
        ("family = 'x'\nsplit = 3\n", ["x.toml"]),
        ("famly = 'x'\nsummary=''\nclasses=3\nsplits=[]\nbackbone='unet'\nfamily='y'\n", ["famly", "'family'"]),
        ("this is not toml", ["x.toml"]),
        (
            "family='x'\nsummary=''\nclasses=3\nsplits=[]\nbackbone='unet'\n[training]\nepoch=3\n",
            ["x.toml", "training.epoch"],
        ),
    ],
)
def test_a_broken_recipe_is_named_with_its_key(tmp_path, text, words):
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path, BenchmarkRecipe)
    assert all(word in str(caught.value) for word in [*words, "x.toml"]), caught.value


def test_a_catalogue_of_ones_own_adds_strategies(tmp_path):
    (tmp_path / "strategies").mkdir()
    (tmp_path / "strategies" / "mine.py").write_text(
        "from densecl import Strategy\nclass Mine(Strategy):\n    weight: float = 1.0\n"
    )
    recipe = 'name = "mine"\nclass = "mine.py:Mine"\nsummary = "one of my own"\n'
    recipe += '[benchmarks."shapes*".strategy]\nweight = 3.0\n[benchmarks."shapes*".training]\nlr = 0.5\n'
    (tmp_path / "strategies" / "mine.toml").write_text(recipe)
    made = plan(strategy="mine", catalogue=tmp_path)
    assert made.settings.strategy_values == {"weight": 3.0}
    assert made.settings.training.lr == 0.5
    (tmp_path / "strategies" / "twice.toml").write_text(recipe)
    with pytest.raises(RecipeError, match="both define 'mine'"):
        plan(strategy="mine", catalogue=tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["family", "summary", "classes", "splits", "backbone", "training", "data", "split", "notes", "x"]
)


@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_recipe_is_read_or_refused_in_one_line(content):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text("".join(f"{key} = {toml(value)}\n" for key, value in content.items()), encoding="utf-8")
        try:
            read_recipe(path, BenchmarkRecipe)
        except RecipeError as error:
            message = str(error)
            assert "recipe.toml" in message


def toml(value):
    """A value as TOML writes it."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    return repr(value)


@pytest.mark.parametrize(
    ("benchmark", "text", "assignments", "expected"),
    [
        ("shapes15-5", "", [], ("tuned", 150, 60)),
        ("voc15-5", "", [], ("published", 3000, 15)),  # a batch that fits beside a teacher
        ("voc15-5", "(preset=published)", [], ("published", 3000, 64)),
        ("voc15-5", "(preset=disalvo,batch=3)", [], ("disalvo", 20000, 3)),
        ("voc-disalvo15-5", "", [], ("disalvo", 20000, 15)),
        ("voc15-5", "", ["deepinversion.batch=3", "deepinversion.preset=disalvo"], ("disalvo", 20000, 3)),
    ],
)
def test_a_preset_stands_for_its_values_where_it_is_given(benchmark, text, assignments, expected):
    values = plan(benchmark, f"mib+deepinversion{text}", assignments=assignments).settings.plugins["deepinversion"]
    assert (values["preset"], values["iterations"], values["batch"]) == expected
