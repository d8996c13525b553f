"""What the documentation shows is true: links, commands, code, recipes, numbers; and it builds without a warning."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import submitit

import densecl
import forked_runs
from data_trees import few_drawn
from densecl.cli import COMMANDS as COMMANDS_OF_CLI
from densecl.cli import main
from densecl.records.record import read_record
from densecl.runner.given import given
from densecl.runner.methods import parse_method
from densecl.runner.plan import make_plan
from densecl.settings.catalogue import benchmark_recipe, entries, strategy_recipes
from densecl.settings.recipe import BenchmarkRecipe, StrategyRecipe, read_recipe
from densecl.streams import protocol
from densecl.sweep.planfile import expand, read_plan
from densecl.tables import groupings
from documents import blocks, commands, help_of, parsed, resolve, write_files

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *(DOCS / "api").glob("*.md")])
TEXTS = {page.relative_to(DOCS).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
COMMANDS = [(page, command) for page, text in TEXTS.items() for command in commands(text)]
PLANS = ROOT / "results" / "plans"
pytestmark = pytest.mark.skipif(not (ROOT / "results" / "embedded").is_dir() or not PAGES, reason="not a checkout")
IMAGES = {"train": 200, "val": 20, "test": 20}  # of the drawn data set, while pages are tried


def of_kind(kind):
    return [name for name, text in TEXTS.items() if any(block.kind == kind for block in blocks(text))]


@pytest.fixture(scope="module")
def text():
    """The module that makes the generated parts of pages."""
    sys.path.insert(0, str(DOCS))
    try:
        from extension import text
    finally:
        sys.path.remove(str(DOCS))
    return text


@pytest.fixture
def page_folder(tmp_path, monkeypatch):
    """An empty working folder, in which the plans of the project are at hand."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "plans").symlink_to(PLANS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DENSECL_CATALOGUE", raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def few_images(tmp_path_factory):
    """A cache of its own with a small drawn data set; runs of a sweep are forks, which have it as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(submitit, "LocalExecutor", forked_runs.Executor)
        patch.setenv("DENSECL_CACHE", str(tmp_path_factory.mktemp("cache")))
        few_drawn(patch, **IMAGES)
        yield


# ---- links


def slug(heading):
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


def anchors(page, text):
    source = TEXTS[page]
    plain = re.sub(r"^```.*?^```$", "", source, flags=re.DOTALL | re.MULTILINE)
    found = {slug(heading) for heading in re.findall(r"^#+ (.*)$", plain, re.MULTILINE)}
    found |= set(re.findall(r"^\(([\w-]+)\)=$", source, re.MULTILINE))
    for kind in re.findall(r"^```{catalogue} (\w+)$", source, re.MULTILINE):
        found |= set(text.anchors(kind))
    return found


@pytest.mark.parametrize("page", TEXTS)
def test_links_and_pictures_lead_somewhere(page, text):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        assert not target.startswith(("http:", "https:")), f"{target}: pages are read offline"
        path, _, anchor = target.partition("#")
        place = (DOCS / page).parent / path if path else DOCS / page
        assert place.is_file(), target
        if anchor:
            assert anchor in anchors(place.resolve().relative_to(DOCS).as_posix(), text), target


def test_the_generated_sections_are_those_that_links_may_name(text):
    for kind in ("strategies", "benchmarks", "backbones"):
        assert sorted(re.findall(r"^## (.*)$", text.KINDS[kind](), re.MULTILINE)) == sorted(text.anchors(kind))


@pytest.mark.parametrize("page", TEXTS)
def test_no_page_names_a_place_of_one_machine(page):
    assert not re.search(r"(?<![\w.])/(?:root|home|tmp|work|opt|usr)/", TEXTS[page])


# ---- commands


def check_plan(path):
    """Every run of a plan, once for all seeds, names what exists; how many runs it has."""
    requests = expand(read_plan(path))
    for one in {request._replace(seed=0) for request in requests}:
        make_plan(one.benchmark, one.strategy, backbone=one.backbone, assignments=one.assignments, device="cpu")
    return len(requests)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_is_one_and_names_what_exists(page, command, page_folder):
    list(write_files(TEXTS[page], page_folder))
    name, options = parsed(command)
    if name == "run":
        resolve(options)
    elif name == "sweep" and options:
        check_plan(Path(options["plan"]))


def test_commands_are_found_in_blocks_directives_and_prose():
    page = "`densecl list` and\n```\ndensecl run -b a -s b  # why\n# densecl no\n"
    page += "torchrun -n=2 -m densecl run -b c -s d\n```\n"
    page += "```{densecl} table x --mix\n```\n```python\ndensecl = 1\n```\n"
    wanted = ["densecl list", "densecl run -b a -s b", "densecl run -b c -s d", "densecl table x --mix"]
    assert commands(page) == wanted
    assert len(COMMANDS) > 60


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("page", "spec"),
    [("method.md", "mine.py:Mine"), ("method.md", "anchor.py:Anchor"), ("tutorial.md", "certain.py:Certain")],
)
def test_the_methods_of_the_pages_pass_their_check(page, spec, page_folder, capsys):
    list(write_files(TEXTS[page], page_folder))
    assert f"densecl check {spec}" in commands(TEXTS[page])
    assert main(["check", spec]) == 0
    assert capsys.readouterr().out.startswith(f"✓ {spec} works")


@pytest.mark.usefixtures("one_thread", "few_images")
def test_the_method_of_the_tutorial_trains_as_the_built_in_one(page_folder):
    list(write_files(TEXTS["tutorial.md"], page_folder))
    short = ["training.iterations=6", "training.later.iterations=2"]
    written = [options for name, options in map(parsed, commands(TEXTS["tutorial.md"])) if name == "run"]
    pair = [options for options in written if options["strategy"] == "plop" or options["assignments"]]
    steps = []
    for options in pair:
        words = ["-b", options["benchmark"], "-s", options["strategy"], "--quiet", "--workers", "0", "--device", "cpu"]
        words += [word for one in [*options["assignments"], *short] for word in ("--set", one)]
        assert main(["run", *words, "--output", options["strategy"][:4]]) == 0
        steps.append(read_record(next(Path(options["strategy"][:4]).rglob("result.json"))).steps)
    matrices = [[step.evaluations[0].confusion for step in one] for one in steps]
    assert len(matrices[0]) == 6
    assert matrices[0] == matrices[1]
    assert matrices[0][-1] != matrices[0][0]


@pytest.mark.usefixtures("one_thread")
def test_the_backbone_of_the_tutorial_passes_its_check(page_folder, capsys):
    list(write_files(TEXTS["backbone.md"], page_folder))
    assert "densecl check small.py:Small" in commands(TEXTS["backbone.md"])
    assert main(["check", "small.py:Small"]) == 0
    assert capsys.readouterr().out.startswith("✓ small.py:Small works")


# ---- code


@pytest.mark.usefixtures("one_thread", "few_images")
@pytest.mark.parametrize("page", of_kind("python"))
def test_the_python_of_a_page_runs(page, page_folder):
    list(write_files(TEXTS[page], page_folder))
    names = {"__name__": "page"}
    for number, block in enumerate(block for block in blocks(TEXTS[page]) if block.kind == "python"):
        exec(compile(block.content, f"{page}, block {number}", "exec"), names)


def test_every_public_name_has_an_example_that_runs():
    used = set()
    for text in TEXTS.values():
        for block in blocks(text):
            for node in ast.walk(ast.parse(block.content)) if block.kind == "python" else ():
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "densecl":
                    used.add(node.attr)
                elif isinstance(node, ast.ImportFrom) and node.module == "densecl":
                    used |= {alias.name for alias in node.names}
    assert {*densecl.__all__} - {"__version__"} <= used


def test_the_reference_has_every_public_name():
    shown = "".join(text for page, text in TEXTS.items() if page.startswith("api/"))
    directives = set(re.findall(r"^\.\. auto(?:class|function|module):: densecl\.(\w+)$", shown, re.MULTILINE))
    assert {*densecl.__all__} - {"__version__", "streams"} <= directives


@pytest.mark.parametrize("page", of_kind("toml"))
def test_the_toml_of_a_page_is_read_and_resolves(page, page_folder):
    files = list(write_files(TEXTS[page], page_folder))
    tomls = [block for block in blocks(TEXTS[page]) if block.kind == "toml"]
    assert all(block.file for block in tomls), "a block of TOML begins with the name of its file"
    for path in (path for path in files if path.suffix == ".toml"):
        if path.parent.name == "benchmarks":
            recipe = read_recipe(path, BenchmarkRecipe)
            for split in recipe.splits:
                plan = make_plan(recipe.family + split, "finetune", catalogue=path.parents[1], device="cpu")
                assert len(plan.steps) >= 2
                assert benchmark_recipe(recipe.family + split, path.parents[1])[1] == split
        elif path.parent.name == "strategies":
            (page_folder / "mine.py").write_text(
                next(block.content for block in blocks(TEXTS["method.md"]) if block.file == "mine.py")
            )
            name = read_recipe(path, StrategyRecipe).name
            assert parse_method(name, path.parents[1]).name == name
            assert make_plan("shapes15-5s", name, catalogue=path.parents[1], device="cpu").settings.strategy_values
        elif path.name == "map.toml":
            assert given(path, path).mapped.classes[0] == "background"
        else:
            assert check_plan(path) > 1


# ---- what is generated, and numbers


def test_every_method_is_described_with_all_its_hyper_parameters(text):
    sections = re.split(r"^## ", text.strategies(), flags=re.MULTILINE)[1:]
    assert len(sections) == len(entries("strategies"))
    for section in sections:
        heading = section.split("\n")[0]
        plugin = heading.removesuffix("-plugin")  # of a plugin that has the name of a strategy
        recipe = strategy_recipes()[heading if heading == plugin else f"+{plugin}"]
        name = recipe.name
        rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", section, re.MULTILINE))
        part = next(p for p in (*_parts(name, recipe.kind),) if p.name == name)
        values = part.resolved()
        assert {*values} <= {*rows}
        for key in values:
            assert rows[key] == ("none" if values[key] is None else str(values[key])), (name, key)
        if recipe.bibtex:
            assert recipe.bibtex.strip() in section


def _parts(name, kind):
    method = parse_method(name if kind == "strategy" else f"finetune+{name}")
    return method.strategy, *method.plugins


def test_comments_behind_hyper_parameters_are_found(text):
    class_ = parse_method("lwf").strategy.cls
    assert text.comments(class_) == {"weight": "of the distillation, which averages over classes and pixels"}


def test_published_numbers_come_from_their_files(text):
    shown = text.published("MiB, Table 1", "mib", "voc15-5")
    source = tomllib.loads((ROOT / "results" / "published" / "mib.toml").read_text(encoding="utf-8"))
    (table,) = (table for table in source["tables"] if table["table"] == "Table 1")
    rows = [row for row in table["rows"] if (row["method"], row["benchmark"]) == ("mib", "voc15-5")]
    assert len(rows) == 2
    for row in rows:
        base, added, overall = (row["values"][part] for part in ("base", "added", "all"))
        assert f"| {row['setting']} | {base} | {added} | {overall} | nowhere |" in shown
    with pytest.raises(ValueError, match="nothing published"):
        text.published("MiB, Table 1", "mib", "voc15-55")


def test_the_plan_that_is_shown_has_the_iterations_of_the_published_counts(text):
    """Batches of 24 of 9,568 and 2,145 images, 30 epochs: 399 and 90 an epoch, the last one smaller."""
    (shown,) = (block.content for block in blocks(TEXTS["reproduce.md"]) if block.kind == "text")
    rows = re.findall(r"^ +(\d) +(\d+) +(\d+) +(\d+) ", shown, re.MULTILINE)
    assert [tuple(map(int, row)) for row in rows] == [(0, 9568, 30, 30 * 399), (1, 2145, 30, 30 * 90)]
    assert -(-9568 // 24) == 399
    assert -(-2145 // 24) == 90
    assert "14,670 iterations of 24 images" in shown
    assert "| `voc-mib15-5` | 24 | 11,970, 2,700 | 14,670 |" in text.lengths()


def test_the_page_on_protocols_names_them_all():
    page = TEXTS["protocols.md"]
    for name in (*protocol.SETTINGS, *protocol.LABELS, *groupings.names()):
        assert f"| `{name}`" in page, name


def test_every_method_of_task_sequences_is_named():
    page = TEXTS["sequences.md"]
    for name, recipe in strategy_recipes().items():
        if recipe.kind == "strategy" and "tasks" in parse_method(name).strategy.cls.streams:
            assert f"methods.md#{name})" in page, name


def test_the_curves_are_those_of_the_records():
    """When records are added: python docs/pictures/draw.py steps."""
    specification = importlib.util.spec_from_file_location("draw", DOCS / "pictures" / "draw.py")
    draw = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(draw)
    assert (DOCS / "pictures" / "steps.svg").read_text(encoding="utf-8") == draw.steps()


def test_every_picture_is_described_and_used():
    about = (DOCS / "pictures" / "README.md").read_text(encoding="utf-8")
    used = "".join(TEXTS.values())
    for path in (DOCS / "pictures").iterdir():
        if path.suffix in (".svg", ".png"):
            assert f"`{path.name}`" in about
            assert f"pictures/{path.name})" in used
            assert path.stat().st_size < 200_000


# ---- the pages themselves


def test_the_pages_build_without_a_warning(tmp_path):
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module)
    words = [
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        "-d",
        str(tmp_path / "doctrees"),
        str(DOCS),
        str(tmp_path / "html"),
    ]
    done = subprocess.run([sys.executable, "-m", "sphinx", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    built = (tmp_path / "html" / "methods.html").read_text(encoding="utf-8")
    assert 'id="mib"' in built
    assert "cermelli2020modeling" in built
    index = (tmp_path / "html" / "index.html").read_text(encoding="utf-8")
    assert "$ densecl table results/embedded/deepinversion" in index
    reference = (tmp_path / "html" / "api" / "strategies.html").read_text(encoding="utf-8")
    assert 'id="densecl.Strategy.regulariser"' in reference


def test_the_extra_has_what_the_pages_need():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    settings = (DOCS / "conf.py").read_text(encoding="utf-8")
    assert {re.split("[>=]", name)[0] for name in extra["docs"]} == {"furo", "myst-parser", "sphinx"}
    assert 'html_theme = "furo"' in settings
    assert '"myst_parser"' in settings


@pytest.mark.parametrize("name", [*COMMANDS_OF_CLI])
def test_the_help_of_a_command_has_two_examples_that_are_commands(name):
    examples = [line.strip() for line in (help_of(name) or "").splitlines() if line.strip().startswith("densecl ")]
    assert len(examples) >= 2
    assert {parsed(example)[0] for example in examples} <= {name, "get", "verify", "export", "import"}
