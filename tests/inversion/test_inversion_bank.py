import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from test_inversion_synthesis import MEAN, STD, network

from densecl.errors import SettingError
from densecl.inversion import Inversion, Request, agreement, load_bank, measure_quality, open_bank
from densecl.inversion.bank import FILE_NAME, bank_key
from densecl.inversion.statistics import BatchStatistics

torch.set_num_threads(1)
CPU = torch.device("cpu")


def request(**changes):
    settings = {"iterations": 4, "batch": 4} | changes.pop("settings", {})
    values = {"labels": (1, 2, 3), "images": 2, "per_image": 1, "size": (32, 32), "seed": 0, "mean": MEAN, "std": STD}
    return Request(**(values | changes), settings=Inversion(**settings))


@pytest.fixture(scope="module")
def teacher():
    return network()


@pytest.fixture
def count(monkeypatch):
    """A list that grows by one for each batch that is synthesised."""
    from densecl.inversion import bank

    calls, made = [], bank.synthesise
    monkeypatch.setattr(bank, "synthesise", lambda *a, **k: calls.append(1) or made(*a, **k))
    return calls


def test_a_bank_is_made_once_and_read_afterwards(tmp_path, teacher, count):
    first = open_bank(tmp_path, request(), teacher)
    assert len(count) == 2  # six images in batches of four
    again = open_bank(tmp_path, request(), teacher)
    assert len(count) == 2
    assert torch.equal(first.images, again.images)
    assert first.hash == again.hash
    assert first.images.shape == (6, 3, 32, 32)
    assert first.images.dtype == torch.uint8
    assert first.targets.nonzero()[:, 1].tolist() == [1, 2, 3, 1, 2, 3]
    content = json.loads((first.folder / FILE_NAME).read_text())
    assert content["hash"] == first.hash
    assert content["request"]["settings"]["iterations"] == 4
    assert content["quality"]["shown"] == pytest.approx(first.quality.shown, abs=1e-4)
    assert again.quality == pytest.approx(first.quality, abs=1e-4)


def test_the_key_knows_all_that_decides_the_images(teacher):
    keys = [
        bank_key(request(), teacher, None, CPU),
        bank_key(request(), network(seed=1), None, CPU),
        bank_key(request(), teacher, network(seed=1), CPU),
        bank_key(request(seed=1), teacher, None, CPU),
        bank_key(request(labels=(1, 2)), teacher, None, CPU),
        bank_key(request(images=3), teacher, None, CPU),
        bank_key(request(per_image=2), teacher, None, CPU),
        bank_key(request(size=(32, 40)), teacher, None, CPU),
        bank_key(request(mean=MEAN + 0.1), teacher, None, CPU),
        bank_key(request(settings={"r0": 5.0}), teacher, None, CPU),
        bank_key(request(settings={"batch": 5}), teacher, None, CPU),
    ]
    assert len(set(keys)) == len(keys)
    assert bank_key(request(), network(), None, CPU) == keys[0]
    moved = network()
    moved.backbone.encoder.stem[1].running_mean += 1e-4  # statistics count as well
    assert bank_key(request(), moved, None, CPU) != keys[0]


def test_missing_and_broken_files_are_named_and_made_again_to_the_same_bits(tmp_path, teacher, count):
    first = open_bank(tmp_path, request(), teacher)
    whole, torn = (first.folder / f"batch-000{k}.safetensors" for k in (0, 1))
    whole.unlink()
    torn.write_bytes(torn.read_bytes()[:-7])
    lines = []
    again = open_bank(tmp_path, request(), teacher, say=lines.append)
    assert torch.equal(again.images, first.images)
    assert len(count) == 4
    assert any(str(whole) in line and "missing" in line for line in lines)
    assert any(str(torn) in line and "refused" in line for line in lines)
    changed = bytearray(torn.read_bytes())
    changed[-1] ^= 1  # one pixel
    torn.write_bytes(changed)
    assert torch.equal(open_bank(tmp_path, request(), teacher, say=lines.append).images, first.images)
    assert "checksum" in lines[-1]


def test_images_of_another_teacher_are_refused(tmp_path, teacher):
    mine = open_bank(tmp_path, request(), teacher)
    other = open_bank(tmp_path, request(), network(seed=1))
    name = "batch-0000.safetensors"
    (mine.folder / name).write_bytes((other.folder / name).read_bytes())
    lines = []
    again = open_bank(tmp_path, request(), teacher, say=lines.append)
    assert torch.equal(again.images, mine.images)
    assert any(str(mine.folder / name) in line and "another bank" in line for line in lines)


class Killed(BaseException):
    pass


def test_an_interrupted_bank_goes_on_to_the_same_images(tmp_path, teacher, monkeypatch):
    from densecl.inversion import bank

    monkeypatch.setattr("densecl.inversion.synthesis.KEEP_EVERY", -1.0)
    whole, cut, made, kept = tmp_path / "whole", tmp_path / "cut", bank.synthesise, []
    expected = open_bank(whole, request(), teacher)

    def killed_in_the_second_batch(*arguments, keep, **keywords):
        def stop(state):
            keep(state)
            if any(cut.rglob("batch-0000.safetensors")) and int(state["done"]) == 3:
                raise Killed

        return made(*arguments, keep=stop, **keywords)

    monkeypatch.setattr(bank, "synthesise", killed_in_the_second_batch)
    with pytest.raises(Killed):
        open_bank(cut, request(), teacher)
    (state,) = cut.rglob("*.state")
    monkeypatch.setattr(bank, "synthesise", lambda *a, **k: kept.append(k["kept"]) or made(*a, **k))
    resumed = open_bank(cut, request(), teacher)
    assert [int(values["done"]) for values in kept] == [3]  # the first batch was done, the second goes on
    assert torch.equal(resumed.images, expected.images)
    assert not state.exists()


def test_two_runs_that_want_the_same_bank_make_it_once(tmp_path, teacher, count):
    found, lines = [], []

    def work(own):
        found.append(open_bank(tmp_path, request(settings={"iterations": 20}), own, say=lines.append))

    # made here: both threads would draw from the one global generator
    threads = [threading.Thread(target=work, args=(network(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(count) == 2
    assert torch.equal(found[0].images, found[1].images)
    assert any("waiting for another run" in line for line in lines)


def test_a_bank_is_found_by_its_key_only_while_it_is_whole(tmp_path, teacher):
    made = open_bank(tmp_path, request(), teacher)
    found = load_bank(made.folder, made.hash)
    assert torch.equal(found.images, made.images)
    assert torch.equal(found.targets, made.targets)
    lines = []
    assert load_bank(made.folder, "another", lines.append) is None
    (made.folder / "batch-0001.safetensors").unlink()
    assert load_bank(made.folder, made.hash, lines.append) is None
    assert load_bank(tmp_path / "nowhere", made.hash, lines.append) is None
    assert len(lines) == 3
    assert all(str(tmp_path) in line for line in lines)


def test_how_long_it_takes_is_said(tmp_path, teacher, monkeypatch):
    monkeypatch.setattr("densecl.inversion.bank.SAY_EVERY", -1.0)
    lines = []
    open_bank(tmp_path, request(), teacher, say=lines.append)
    assert lines[0].startswith("synthesising 4 images (batch 1 of 2): iteration 1 of 4, about ")
    assert lines[-1].startswith("synthesising 2 images (batch 2 of 2): iteration 4 of 4, about 0 s left")


def test_bad_requests_leave_nothing_behind(tmp_path, teacher):
    from densecl.models.network import Network
    from densecl.settings.backbone import build_backbone

    for wrong in ({"labels": (1, 9)}, {"images": 0}, {"labels": (0,)}):
        with pytest.raises(SettingError):
            open_bank(tmp_path, request(**wrong), teacher)
    plain = Network(build_backbone("unet", {"width": 4, "depth": 2, "norm": "instance"}))
    plain.grow(4)
    with pytest.raises(SettingError, match="BatchNorm"):
        open_bank(tmp_path, request(), plain)
    assert list(tmp_path.iterdir()) == []


def test_the_gallery_shows_one_image_a_class_above_its_labels(tmp_path, teacher):
    made = open_bank(tmp_path, request(), teacher)
    picture = np.asarray(Image.open(made.folder / "gallery.png").convert("RGB"))
    assert picture.shape == (2 * 96 + 4, 3 * 98 + 2, 3)  # 32 pixels are shown three times as large
    tile = picture[2:98:3, 2:98:3]
    assert any((tile == image.permute(1, 2, 0).numpy()).all() for image in made.images[made.targets[:, 1]])


# ---- figures


def test_quality_is_counted_pixel_by_pixel(teacher):
    images = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    targets = torch.zeros(3, 4, dtype=torch.bool)
    targets[0, 1] = targets[1, 2] = targets[2, 3] = targets[2, 1] = True
    with torch.no_grad():
        p = teacher((images.float() / 255 - MEAN) / STD).logits.softmax(1).numpy()
    label = p.argmax(1)
    found = measure_quality(images, targets, teacher, MEAN, STD)
    wanted = [np.isin(label[i], np.flatnonzero(targets[i])).mean() for i in range(3)]
    assert found.target_pixels == pytest.approx(np.mean(wanted))
    assert found.foreground == pytest.approx((label > 0).mean())
    assert found.confidence == pytest.approx(p.max(1).mean(), rel=1e-5)
    pairs = [(0, 1), (1, 2), (2, 1), (2, 3)]
    assert found.shown == pytest.approx(np.mean([(label[i] == c).mean() >= 0.02 for i, c in pairs]))


def test_the_distance_does_not_depend_on_the_chunks(teacher, monkeypatch):
    images = torch.randint(0, 256, (5, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    targets = torch.ones(5, 4, dtype=torch.bool)
    with torch.no_grad(), BatchStatistics(teacher) as statistics:
        teacher((images.float() / 255 - MEAN) / STD)
        whole = statistics.distance().item()
    for chunk in (2, 5):
        monkeypatch.setattr("densecl.inversion.quality.CHUNK", chunk)
        assert measure_quality(images, targets, teacher, MEAN, STD).distance == pytest.approx(whole, rel=1e-4)


def test_agreement_is_of_labels(teacher):
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte()
    targets = torch.ones(4, 4, dtype=torch.bool)
    targets[:, 0] = False
    assert agreement(images, targets, teacher, teacher, MEAN, STD).pixels == 1
    judge = network(seed=1)
    with torch.no_grad():
        x = (images.float() / 255 - MEAN) / STD
        ours, theirs = (net(x).logits.argmax(1).numpy() for net in (teacher, judge))
    found = agreement(images, targets, teacher, judge, MEAN, STD)
    assert found.pixels == pytest.approx((ours == theirs).mean())
    if (ours > 0).any():
        assert found.foreground == pytest.approx((ours == theirs)[ours > 0].mean())
