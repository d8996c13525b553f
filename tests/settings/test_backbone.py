"""Backbones by name and of a user: found by their place, checked, part of the run's hash, not imported for a record."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import densecl
from densecl.cli import main
from densecl.errors import DenseCLError, SettingError, UnknownNameError
from densecl.models import Backbone, backbone_in
from densecl.records.record import read_record
from densecl.runner.build import build_network
from densecl.runner.plan import make_plan
from densecl.settings.backbone import backbone_class, build_backbone, packaged_backbone, resolve_backbone
from densecl.settings.catalogue import backbones, entries
from tiny_runs import refused, run_words

SMALL = '''"""A small network."""
from torch import nn
from densecl.models import Backbone, Features
class Small(Backbone):
    def __init__(self, width: int = 8, rates: tuple[int, ...] = (1, 2)):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
        self.channels = width
    def forward(self, image):
        x = self.first(image)
        return Features(x, (x,))
class NoDefault(Small):
    def __init__(self, width: int):
        super().__init__(width)
class Other:
    pass
'''


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A user's file, in the working folder."""
    (tmp_path / "small.py").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "small.py"


def plan(backbone=None, benchmark="shapes15-5", **options):
    return make_plan(benchmark, "finetune", backbone=backbone, device="cpu", **options)


def test_a_backbone_is_a_file_with_one_class_and_a_line_that_says_what_it_is():
    files = sorted((Path(densecl.__file__).parent / "models" / "backbones").glob("*.py"))
    assert list(backbones()) == [path.stem for path in files if path.stem != "__init__"]
    for name, summary in backbones().items():
        assert packaged_backbone(name) is getattr(densecl.models, backbone_in(name).__name__)
        assert len(summary) > 20
        assert not summary.endswith(".")
    with pytest.raises(AttributeError, match="Nothing"):
        densecl.models.Nothing  # noqa: B018


def test_names_are_listed_without_torch():
    code = "import sys; from densecl.settings.catalogue import backbones as b; b(); print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"
    assert [entry.name for entry in entries("backbones")] == list(backbones())


def test_a_small_network_needs_no_timm():
    code = (
        "import sys; from densecl.settings.backbone import build_backbone as b; "
        "b('bisenet', {'encoder': 'mini'}), b('unet'); print('timm' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"


def test_a_class_of_a_user_is_built_from_checked_arguments(small):
    cls = backbone_class("small.py:Small")
    assert issubclass(cls, Backbone)
    assert build_backbone(cls, {"width": 5}).channels == 5
    assert resolve_backbone(cls, {"rates": [3]}) == {"width": 8, "rates": (3,)}
    with pytest.raises(SettingError, match="backbone Small has width='5'"):
        build_backbone(cls, {"width": "5"})
    with pytest.raises(UnknownNameError, match=r"key of backbone Small 'widht'. did you mean 'width'"):
        build_backbone(cls, {"widht": 5})
    with pytest.raises(SettingError, match="Small has no encoder to load weights into"):
        resolve_backbone(cls, {}, weights="timm")
    missing = backbone_class("small.py:NoDefault")
    with pytest.raises(SettingError, match="NoDefault needs a value for 'width'"):
        resolve_backbone(missing, {})
    assert resolve_backbone(missing, {"width": 3}) == {"width": 3}


@pytest.mark.parametrize(
    ("reference", "error", "words"),
    [
        ("small.py:Smal", UnknownNameError, "did you mean 'Small'"),
        ("small.py:Other", SettingError, "'small.py:Other' is no backbone. subclass densecl.models.Backbone"),
        ("absent.py:Small", DenseCLError, "absent.py"),
        ("small.py", UnknownNameError, "or file.py:Class for one of your own"),
        ("unett", UnknownNameError, "did you mean 'unet'"),
        ("__init__", UnknownNameError, "unknown backbone '__init__'"),
    ],
)
@pytest.mark.usefixtures("small")
def test_names_that_fit_nothing_are_refused_in_one_line(reference, error, words):
    with pytest.raises(error) as caught:
        plan(reference)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_has_the_name_of_the_class_and_the_hash_of_its_source(small, tmp_path):
    near, far = plan("small.py:Small(width=4)"), plan(f"{small}:Small(width=4)")
    assert near.hash == far.hash
    assert near.folder == far.folder
    assert near.folder.parts[-2] == near.backbone_name == "Small"
    assert near.settings.backbone == "small.py:Small"
    assert plan("small.py:Small(width=5)").hash != near.hash
    small.write_text(SMALL + "# edited\n")
    assert plan("small.py:Small(width=4)").hash != near.hash
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "small.py").write_text(SMALL + "# edited\n")
    assert plan("elsewhere/small.py:Small(width=4)").hash == plan("small.py:Small(width=4)").hash


def test_our_backbones_have_no_source_of_their_own_in_the_hash():
    assert plan("unet(width=4)").backbone_source == ""
    assert plan("unet(width=4)").backbone_name == "unet"


@pytest.mark.parametrize("of", ["benchmark", "strategy"])
def test_a_file_that_a_recipe_names_is_relative_to_the_recipe(of, tmp_path, monkeypatch):
    for kind in ("benchmarks", "strategies"):
        (tmp_path / "mine" / kind).mkdir(parents=True)
    recipe = "family = 'own'\nsummary = ''\nclasses = 20\nsplits = ['15-5']\n[data]\nname = 'shapes'\n"
    backbone = "../small.py:Small(width=3)"
    (tmp_path / "mine" / "benchmarks" / "own.toml").write_text(
        f"backbone = '{backbone if of == 'benchmark' else 'unet'}'\n{recipe}"
    )
    (tmp_path / "mine" / "small.py").write_text(SMALL)
    if of == "strategy":
        (tmp_path / "mine" / "strategies" / "own.toml").write_text(
            "name = 'ours'\nclass = 'densecl.strategies.finetune:Finetune'\nsummary = ''\n"
            f"[networks]\n'own*' = '{backbone}'\n"
        )
    monkeypatch.chdir(tmp_path)
    strategy = "ours" if of == "strategy" else "finetune"
    made = make_plan("own15-5", strategy, device="cpu", catalogue=tmp_path / "mine")
    assert made.backbone is not None
    assert made.backbone.__name__ == "Small"
    assert made.settings.backbone_values["width"] == 3
    assert made.folder.parts[-2] == "Small"


def test_a_name_out_of_a_record_is_not_imported(tmp_path):
    (tmp_path / "small.py").write_text(f"from pathlib import Path\nPath(r'{tmp_path}/imported').touch()\n{SMALL}")
    reference = f"{tmp_path}/small.py:Small"
    settings = plan("unet(width=4)").settings.model_copy(update={"backbone": reference, "backbone_values": {}})
    with pytest.raises(SettingError, match="code that a record names is not run"):
        build_network(settings)
    with pytest.raises(SettingError, match="code that a record names is not run"):
        packaged_backbone(reference)
    assert not (tmp_path / "imported").exists()
    network = build_network(settings, backbone_class(reference))
    assert (tmp_path / "imported").exists()
    assert type(network.backbone).__name__ == "Small"


def test_a_run_with_a_backbone_of_a_user_is_trained_and_recorded(voc, small, tmp_path, capsys):
    words = run_words(voc, tmp_path / "results", "--quiet", strategy="mib")
    words[words.index("--backbone") + 1] = "small.py:Small(width=4)"
    assert main(words) == 0
    (path,) = (tmp_path / "results").rglob("result.json")
    record = read_record(path)
    assert record.status == "finished"
    assert record.backbone == path.parent.parent.name == "Small"
    assert record.settings["backbone"] == "small.py:Small"
    assert record.settings["backbone_values"] == {"width": 4, "rates": [1, 2]}
    assert set(json.loads(path.read_text())["environment"]["sources"]) == {"Small"}
    capsys.readouterr()
    assert main(["check", "small.py:Small(width=4)"]) == 0
    assert "small.py:Small(width=4) works" in capsys.readouterr().out
    refused(capsys, ["check", "small.py:Small(width=x)"], "backbone Small has width='x'")


def test_check_names_the_faults_of_a_backbone(small, capsys):
    small.write_text(SMALL.replace("self.channels = width", "self.channels = 3 * width"))
    assert main(["check", "small.py:Small"]) == 2
    shown = capsys.readouterr()
    assert "it must be a tensor (2, 24, h, w)" in shown.out
    assert "in small.py:Small" in shown.err
