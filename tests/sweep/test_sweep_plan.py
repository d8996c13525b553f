"""Plans of sweeps: what they expand to, and what is refused before anything starts."""

from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from densecl.cli import main
from densecl.errors import RecipeError
from densecl.sweep.jobs import Where, check, in_order, leaders, make_jobs, may_start
from densecl.sweep.planfile import SlurmSettings, expand, read_plan
from densecl.sweep.slurm import parameters
from tiny_runs import BACKBONE, SETTINGS

ROOT = Path(__file__).parents[2]
SMALL = {"benchmarks": ["voc15-5"], "strategies": ["mib"], "backbones": [BACKBONE], "set": [*SETTINGS]}


def requests(**content):
    return expand(read_plan({"benchmarks": ["voc15-5"], "strategies": ["mib"], **content}))


def jobs_of(voc, output, **content):
    where = Where(output, voc, "cpu")
    return check(make_jobs(expand(read_plan({**SMALL, **content})), where, "PLAN"), "PLAN", 1)


# ---- what a plan expands to


@given(*(st.integers(1, 3) for _ in range(5)))
def test_a_plan_is_the_product_of_its_lists(strategies, seeds, backbones, rates, crops):
    found = requests(
        strategies=[f"s{k}" for k in range(strategies)],
        seeds=[*range(seeds)],
        backbones=[f"b{k}" for k in range(backbones)],
        grid={"training": {"lr": [0.1 * (k + 1) for k in range(rates)]}, "training.crop": [*range(1, crops + 1)]},
    )
    assert len(found) == len({str(request) for request in found}) == strategies * seeds * backbones * rates * crops


def test_settings_go_from_the_general_to_the_special():
    (one, two) = requests(
        set=["training.batch=8", "training.lr=1"],
        precision="bf16",
        grid={"strategy.distillation": [3]},
        settings=[{"set": ["training.lr=2"], "reported": 48.0}, {"precision": "fp32", "backbone": "unet"}],
    )
    assert one.assignments == ("training.batch=8", "training.lr=1", "training.lr=2", "strategy.distillation=3")
    assert (one.precision, one.backbone, one.reported) == ("bf16", None, 48.0)
    assert two.assignments == ("training.batch=8", "training.lr=1", "strategy.distillation=3")
    assert (two.precision, two.backbone, two.reported) == ("fp32", "unet", None)
    assert str(one) == "voc15-5, mib, seed 0, training.lr=2 strategy.distillation=3"
    assert str(two) == "voc15-5, mib, seed 0, unet precision=fp32 strategy.distillation=3"


def test_further_runs_take_what_they_do_not_say_from_the_plan():
    found = requests(
        seeds=[1, 2],
        set=["training.batch=8"],
        grid={"training.lr": [1, 2]},
        runs=[{"strategies": "joint", "set": ["training.lr=5"]}, {"benchmarks": "voc10-10", "seeds": 7}],
    )
    assert [(r.benchmark, r.strategy, r.seed) for r in found] == [
        *[("voc15-5", "mib", seed) for _ in range(2) for seed in (1, 2)],
        ("voc15-5", "joint", 1),
        ("voc15-5", "joint", 2),
        ("voc10-10", "mib", 7),
    ]
    assert {r.assignments for r in found[4:6]} == {("training.batch=8", "training.lr=5")}
    assert str(found[4]) == "voc15-5, joint, seed 1, training.lr=5"


def test_a_plan_may_consist_of_further_runs_alone():
    plan = {"runs": [{"benchmarks": "voc15-5", "strategies": "joint"}, {"benchmarks": "a", "strategies": "b"}]}
    assert [str(request) for request in expand(read_plan(plan))] == ["voc15-5, joint, seed 0", "a, b, seed 0"]


def test_a_table_of_settings_says_what_the_list_says():
    table = {"training": {"lr": 0.5, "crop": [48, 32], "later": {"epochs": 3}}, "stream.setting": "disjoint"}
    texts = ("training.lr=0.5", "training.crop=(48, 32)", "training.later.epochs=3", "stream.setting=disjoint")
    assert requests(set=table)[0].assignments == texts


@pytest.mark.parametrize(("text", "minutes"), [(90, 90), ("4:00:00", 240), ("1-02:03:00", 1563), ("0:00:30", 1)])
def test_time_is_written_as_slurm_writes_it(text, minutes):
    assert read_plan({**SMALL, "slurm": {"time": text}}).slurm.time == minutes


def test_resources_reach_sbatch():
    given = SlurmSettings(partition="gpu", gpus="a100:2", cpus=4, setup=("module load cuda",), sbatch={"nice": 5})
    found = parameters(given, {"dependency": "afterany:7"})
    assert found["gpus_per_node"] == "a100:2"
    assert (found["partition"], found["cpus_per_task"], found["setup"]) == ("gpu", 4, ["module load cuda"])
    assert found["additional_parameters"] == {"requeue": True, "nice": 5, "dependency": "afterany:7"}
    assert "gpus_per_node" not in parameters(SlurmSettings())


COUNTS = {  # of runs
    "class-orders": 75,
    "deepinversion-controls": 50,
    "deepinversion-replay": 22,
    "deepinversion-synthesis": 19,
    "mallya-initialisation": 4,
    "example": 6,
    "field": 219,
    "photographs": 99,
    "photographs-deepinversion": 18,
    "scenes": 48,
    "transformer": 21,
}


@pytest.mark.parametrize("path", sorted((ROOT / "results" / "plans").glob("*.toml")), ids=lambda path: path.stem)
def test_every_plan_that_comes_along_can_be_read(path):
    plan = read_plan(path)
    assert plan.name == path.stem
    assert len(expand(plan)) == COUNTS[path.stem]


def test_the_words_of_a_run_make_the_run_that_was_planned(voc, tmp_path, capsys):
    content = {"precision": "bf16", "validation": 0.2, "grid": {"strategy.distillation": [3.5]}, "seeds": [4]}
    (job,) = jobs_of(voc, tmp_path / "results", **content)
    assert main([*job.words, "--dry-run"]) == 0
    assert f"folder     {job.plan.folder}\n" in capsys.readouterr().out


def test_a_path_below_the_home_folder_reaches_the_run_whole(voc, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(voc.parents[1]))
    (job,) = jobs_of(Path("~") / voc.relative_to(voc.parents[1]), tmp_path)
    assert job.words[job.words.index("--data") + 1] == str(voc)


# ---- what is refused


class TestBadPlans:
    BASE = 'benchmarks = ["voc15-5"]\nstrategies = ["mib"]\n'
    CASES: ClassVar = {
        "seed = [1]": "unknown key 'seed'. did you mean 'seeds'?",
        "[[settings]]\nbakbone = 'unet'": "unknown key 'settings.0.bakbone'. did you mean 'settings.0.backbone'?",
        "[[runs]]\nstrategys = ['mib']": "unknown key 'runs.0.strategys'. did you mean 'runs.0.strategies'?",
        "[slurm]\ngpu = 1": "unknown key 'slurm.gpu'. did you mean 'slurm.gpus'?",
        "[slurm]\ntime = '4h'": "'slurm.time' cannot be '4h'",
        "seeds = []": "'seeds' cannot be []: the list is empty",
        "seeds = [-1]": "'seeds.0' cannot be -1",
        'settings = {"data.validation" = 0.2}': "'settings': it is a list of tables, [[settings]]; for one value of",
        "settings = ['data.validation=0.2']": '[[settings]]; for one value of all runs write set = ["data.validation=',
        "[runs]\nseeds = 1": "'runs': it is a list of tables, [[runs]]",
        "set = 5": "'set' cannot be 5: write a list",
        "local = 5": "'local' cannot be 5: write a table of keys and values",
        "data = 5": "'data' cannot be 5: write a path",
        "settings = []": "'settings' cannot be []: the list is empty",
        "[grid]": "'grid' is empty",
        "[grid]\ntraining.lr = []": "'grid.training.lr' is empty",
        "[grid]\ntraining.lr = 0.1": "'grid.training.lr' cannot be 0.1. an axis is a list",
        "[grid]\ntraining.lrr = [0.1]": "run 1 (voc15-5, mib, seed 0, training.lrr=0.1): unknown key 'training.lrr'",
        "[grid]\nstrategy.distilation = [1]": "did you mean 'distillation'?",
        "set = ['training.epochs']": "run 1 (voc15-5, mib, seed 0): cannot read 'training.epochs'",
        "[[runs]]\nstrategies = ['mibb']": "run 2 (voc15-5, mibb, seed 0): unknown strategy or plugin 'mibb'",
        "[[runs]]\nbackbones = ['resnet']": "run 2 (voc15-5, mib, seed 0): unknown backbone 'resnet'",
        "engine = 'pbs'": "'engine' cannot be 'pbs'",
        "name = '../elsewhere'": "'name' cannot be '../elsewhere'",
        "source = 'x'": "unknown key 'source'",
        "seeds = [0": "cannot read the plan",
        "[local]\njobs = 0": "'local.jobs' cannot be 0",
        "set = [3]": "'set.0' cannot be 3",
    }

    @pytest.mark.parametrize("text", CASES)
    def test_a_bad_plan_is_one_line_that_names_file_and_key(self, voc, tmp_path, capsys, text):
        path = tmp_path / "bad.toml"
        path.write_text(self.BASE + text)
        words = ["sweep", path, "--data", voc, "--output", tmp_path / "results", "--device", "cpu"]
        assert main([str(word) for word in words]) == 2
        shown = capsys.readouterr().err
        assert shown.count("\n") == 1
        assert str(path) in shown
        assert self.CASES[text] in shown
        assert not (tmp_path / "results").exists()

    @pytest.mark.parametrize("missing", ["benchmarks", "strategies"])
    def test_a_plan_without_a_list_says_which(self, missing):
        plan = {"benchmarks": ["voc15-5"], "strategies": ["mib"]}
        del plan[missing]
        with pytest.raises(RecipeError, match=f"the key '{missing}' is missing"):
            expand(read_plan(plan))


@pytest.mark.parametrize(
    "more",
    [
        {"seeds": [3, 3]},
        {"backbones": [BACKBONE, BACKBONE.replace("none", "'none'")]},
        {"runs": [{"strategies": "mib(distillation=10)"}]},  # the default
        {"grid": {"training.lr": [0.5, 0.50]}},
        {"grid": {"loader.workers": [0, 1]}},  # must not change the numbers, hence no other run
    ],
    ids=str,
)
def test_two_runs_of_one_folder_are_both_named(voc, tmp_path, more):
    with pytest.raises(
        RecipeError, match=r"PLAN: run 1 \(voc15-5, mib, .*\) and run 2 \(.*\) are one run, .*s\d-"
    ) as e:
        jobs_of(voc, tmp_path, **more)
    assert "leave one of them out" in str(e.value)


def test_a_run_that_would_be_refused_later_is_refused_now(voc, tmp_path):
    with pytest.raises(RecipeError, match=r"run 2 .*fp16 needs a CUDA device"):
        jobs_of(voc, tmp_path, settings=[{}, {"precision": "fp16"}])


def test_methods_that_change_layers_leave_the_network_of_the_next_run_alone(voc, tmp_path):
    assert len(jobs_of(voc, tmp_path, strategies=["rcil", "finetune"], seeds=[0, 1])) == 4


def test_a_run_on_another_machine_may_need_what_this_one_lacks(voc, tmp_path):
    plan = read_plan({**SMALL, "precision": "fp16"})
    jobs = make_jobs(expand(plan), Where(tmp_path, voc, "cuda:7"), "PLAN", remote=True)
    (job,) = check(jobs, "PLAN", 1, remote=True)
    assert job.words[job.words.index("--device") + 1] == "cuda:7"


def test_without_slurm_a_sweep_says_what_to_do(voc, tmp_path, monkeypatch, capsys):
    path = tmp_path / "plan.toml"
    path.write_text(TestBadPlans.BASE)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["sweep", str(path), "--engine", "slurm", "--data", str(voc)]) == 2
    shown = capsys.readouterr().err
    assert "there is no sbatch on this machine" in shown
    assert "--engine local" in shown


def test_settings_that_the_command_line_gives_win(voc, tmp_path, capsys):
    path = tmp_path / "plan.toml"
    small = f"backbones = [{BACKBONE!r}]\nset = {[*SETTINGS]!r}\n"
    path.write_text(TestBadPlans.BASE + small + "data = '/nowhere'\ndevice = 'cuda:9'\nengine = 'slurm'\n")
    words = ["sweep", path, "--data", voc, "--device", "cpu", "--engine", "local", "--output", tmp_path / "results"]
    assert main([*map(str, words), "--dry-run"]) == 0
    assert "1 run: 0 finished, 0 to resume, 1 to do" in capsys.readouterr().out
    assert main([*map(str, [*words[:2], *words[4:]]), "--dry-run"]) == 2
    assert "/nowhere" in capsys.readouterr().err


# ---- first steps


def test_runs_share_a_first_step_as_the_runs_themselves_would(voc, tmp_path):
    jobs = jobs_of(
        voc,
        tmp_path,
        strategies=["finetune", "mib", "mib+ewc", "joint"],
        seeds=[0, 1],
        runs=[{"set": ["training.later.lr=0.5"]}, {"set": ["training.lr=0.5"]}],
    )
    keys = {}
    for job in jobs:
        training, seed = job.plan.settings.training, job.plan.settings.seed
        keys.setdefault((job.plan.method.joint, training.lr, seed), []).append(job.first_step)
    # the rest acts after step 0; runs of joint share theirs with each other
    assert [len(group) for (joint, *_), group in keys.items() if not joint] == [6, 6, 3, 3]
    assert [len(group) for (joint, *_), group in keys.items() if joint] == [2, 2, 1, 1]
    assert all(len(set(group)) == 1 for group in keys.values())
    assert len({key for group in keys.values() for key in group}) == 8


def test_one_run_of_each_first_step_goes_ahead(voc, tmp_path):
    jobs = jobs_of(voc, tmp_path, strategies=["finetune", "mib", "lwf"], seeds=[0, 1])
    assert [job.number for job in leaders(jobs)] == [1, 2]
    assert [job.number for job in in_order(jobs[::-1])] == [1, 2, 3, 4, 5, 6]
    first, other_seed, follower = jobs[0], jobs[1], jobs[2]
    assert may_start(other_seed, [first])
    assert not may_start(follower, [first])
    assert may_start(follower, [other_seed])
    path = follower.first_step_file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert may_start(follower, [first])
    assert [job.number for job in leaders(jobs)] == [2]


def test_a_run_alone_with_its_first_step_waits_for_nobody(voc, tmp_path):
    jobs = jobs_of(voc, tmp_path, seeds=[0, 1, 2])
    assert leaders(jobs) == []
    assert may_start(jobs[0], jobs[1:])
