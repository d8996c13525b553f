"""First steps that are given, exported and imported."""

import hashlib
import http.server
import json
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from densecl.cli import main
from densecl.data.sets.voc import VOC
from densecl.finished.first import export_first
from densecl.records.record import read_record
from tiny_runs import BACKBONE, refused, refused_run, run_words

pytestmark = pytest.mark.usefixtures("one_thread")
BASE = ("background", *VOC.class_names[:15])


@pytest.fixture
def exported(run_copy, tmp_path) -> Path:
    """The first step of the finished run, in a file."""
    return export_first(run_copy, tmp_path / "first.safetensors").path


def first_scores(output: Path) -> tuple[list, object]:
    (path,) = output.rglob("result.json")
    record = read_record(path)
    return record.steps[0].evaluations[0].confusion, record


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def words(finished, output, *more, **which) -> list[str]:
    return run_words(finished / "data", output, "--quiet", *more, **which)


def test_a_first_step_travels_to_another_results_folder_with_its_bits(finished, run_copy, tmp_path, capsys):
    file, other = tmp_path / "out" / "first.safetensors", tmp_path / "other"
    assert main(["first", "export", str(run_copy), "-o", str(file)]) == 0
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"sha256 {digest}" in capsys.readouterr().out
    assert main(["first", "import", str(file), "--output", str(other), "--sha256", digest]) == 0
    assert "made with other code" not in capsys.readouterr().out
    assert main(words(finished, other, strategy="lwf")) == 0
    confusion, record = first_scores(other)
    assert record.steps[0].shared
    assert record.steps[0].iterations == 0
    assert confusion == read_record(run_copy / "result.json").steps[0].evaluations[0].confusion
    (weights,) = other.rglob("step0.safetensors")
    before = load_file(run_copy / "weights" / "step0.safetensors")
    assert all(torch.equal(tensor, before[name]) for name, tensor in load_file(weights).items())


def test_an_address_is_fetched(exported, tmp_path, capsys):
    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(exported.parent)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        assert main(["first", "import", f"{address}/{exported.name}", "--output", str(tmp_path / "other")]) == 0
        (place,) = (tmp_path / "other" / ".shared").glob("*.safetensors")
        assert place.read_bytes() == exported.read_bytes()
        capsys.readouterr()
        missing = ["first", "import", f"{address}/absent", "--output", tmp_path / "none"]
        refused(capsys, missing, f"{address}/absent cannot be fetched", "import the file")
        assert not (tmp_path / "none").exists()
    finally:
        server.shutdown()


def changed(exported: Path, how: str) -> None:
    """Change an exported file."""
    tensors, about = load_file(exported), metadata(exported)
    name = next(iter(tensors))
    if how == "cut":
        exported.write_bytes(exported.read_bytes()[:-100])
    elif how == "text":
        exported.write_text("not weights")
    elif how == "tensor":
        save_file({**tensors, name: tensors[name] + 1}, exported, metadata=about)
    elif how == "settings":
        content = json.loads(about["content"]) | {"seed": 7}
        save_file(tensors, exported, metadata={**about, "content": json.dumps(content, sort_keys=True)})
    elif how == "foreign":
        save_file(tensors, exported)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("cut", "it is damaged; fetch it again from where it came"),
        ("text", "is no first step of densecl. `densecl first export RUN -o FILE` writes one"),
        ("tensor", "its checksum does not fit"),
        ("settings", "its key is not that of its settings"),
        ("foreign", "is no first step of densecl"),
    ],
)
def test_a_changed_or_foreign_export_is_refused(exported, tmp_path, capsys, how, named):
    changed(exported, how)
    refused(capsys, ["first", "import", exported, "--output", tmp_path / "other"], exported, named)
    assert not (tmp_path / "other").exists()


def test_another_sha256_and_a_run_without_a_shared_step_are_refused(exported, run_copy, tmp_path, capsys):
    wrong = ["first", "import", exported, "--output", tmp_path / "other", "--sha256", "0" * 64]
    refused(capsys, wrong, "has the SHA-256")
    refused(capsys, ["first", "export", run_copy, "-o", exported], "exists already")
    shutil.rmtree(run_copy.parents[3] / ".shared")
    refused(capsys, ["first", "export", run_copy, "-o", tmp_path / "again"], "does not have the first step")
    refused(capsys, ["first", "import", tmp_path / "absent"], "there is no such file")


def test_a_run_without_kept_weights_has_no_first_step_to_export(run_copy, tmp_path, capsys):
    shutil.rmtree(run_copy / "weights")
    said = refused(capsys, ["first", "export", run_copy, "-o", tmp_path / "first.safetensors"], "no weights of step 0")
    assert said.count(str(run_copy)) == 1
    assert "run it again; where it is finished, with --fresh" in said
    assert "damaged" not in said


def test_a_network_of_another_code_base_is_taken_with_a_map(finished, run_copy, tmp_path, capsys):
    """Names as torchvision has them, outputs in another order with others among them, in a file of torch."""
    names = [*sorted(BASE), "unknown"]
    stored = {}
    for name, tensor in load_file(run_copy / "weights" / "step0.safetensors").items():
        if name.startswith("heads."):
            rows = torch.randn(len(names), *tensor.shape[1:])
            rows[[names.index(label) for label in BASE]] = tensor
            tensor = rows
        name = name.replace("heads.places.0.0", "classifier.4").replace("backbone.encoder.", "net.")
        stored[f"module.{name}"] = tensor
    torch.save({"model": stored, "epoch": 30}, tmp_path / "step0.pth")
    mapped = tmp_path / "map.toml"
    mapped.write_text(
        f'classes = {json.dumps(names)}\n[names]\n"net." = "backbone.encoder."\n"classifier.4" = "heads.places.0.0"\n'
    )
    given = ["--first", str(tmp_path / "step0.pth"), "--first-map", str(mapped)]
    assert main(words(finished, tmp_path / "out", *given, strategy="ilt")) == 0, capsys.readouterr().err
    confusion, record = first_scores(tmp_path / "out")
    assert confusion == read_record(run_copy / "result.json").steps[0].evaluations[0].confusion
    assert record.steps[0].iterations == 0
    digest = hashlib.sha256((tmp_path / "step0.pth").read_bytes() + mapped.read_bytes()).hexdigest()
    assert record.settings["first"] == {"file": "step0.pth", "sha256": digest}
    plain = read_record(run_copy / "result.json")
    assert plain.settings.get("first") is None
    assert main(words(finished, tmp_path / "out", *given, strategy="ilt")) == 0  # finished: the same run


def test_an_exported_step_and_weights_of_a_run_are_given_without_a_map(finished, exported, run_copy, tmp_path):
    assert main(words(finished, tmp_path / "out", "--first", str(exported), "--seed", "3")) == 0
    assert first_scores(tmp_path / "out")[0] == read_record(run_copy / "result.json").steps[0].evaluations[0].confusion


@pytest.mark.parametrize(
    ("which", "named"),
    [
        ({"benchmark": f"voc10-10(order={[20, *range(1, 20)]})"}, "no output of the class 'tvmonitor'"),
        ({"strategy": "joint"}, "a first step is given to a stream of classes with one head"),
        ({"strategy": "piggyback"}, "a first step is given to a stream of classes with one head"),
        ({"strategy": "dkd"}, "trains its first step in a way of its own"),
    ],
)  # fmt: skip
def test_a_first_step_of_other_classes_or_for_other_methods_is_refused(
    finished, exported, capsys, tmp_path, which, named
):
    refused_run(
        capsys, finished / "data", [named], "--quiet", "--first", str(exported), output=tmp_path / "out", **which
    )


def test_another_network_and_one_that_knows_no_class_are_refused(finished, exported, run_copy, capsys, tmp_path):
    data, out = finished / "data", tmp_path / "out"
    wider = [
        "--first",
        str(exported),
        "--quiet",
        "--backbone",
        BACKBONE.replace("width=8,spatial=", "width=16,spatial="),
    ]
    refused_run(capsys, data, ["of shape", "is it of this benchmark and backbone?"], *wider, output=out)
    refused_run(capsys, data, ["has no 'backbone."], *wider[:3], "--backbone", "unet(width=4)", output=out)
    tensors = load_file(run_copy / "weights" / "step0.safetensors")
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, tmp_path / "zero.safetensors")
    zero = ["--quiet", "--first", str(tmp_path / "zero.safetensors")]
    refused_run(capsys, data, ["mean IoU of 0.0 % on the 15 classes", "--first-map"], *zero, output=out)
    refused_run(capsys, data, ["--first-map without --first"], "--first-map", str(data), output=out)
    refused_run(capsys, data, ["no such file"], "--first", str(tmp_path / "absent"), output=out)
    later = ["--quiet", "--first", str(run_copy / "weights" / "step1.safetensors")]
    refused_run(capsys, data, ["holds weights of step 1"], *later, output=out)
    (tmp_path / "map.toml").write_text("clases = []")
    misspelt = [*zero, "--first-map", str(tmp_path / "map.toml")]
    refused_run(capsys, data, ["map.toml", "did you mean 'classes'"], *misspelt, output=out)
