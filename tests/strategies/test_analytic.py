"""The analytic head in training: its sums against NumPy, what is named in the background, what is learnt when."""

import numpy as np
import pytest
import torch

from densecl.errors import RunError, SettingError
from densecl.strategies import analytic
from densecl.strategies.analytic import gram, name_background, ridge
from trained_loops import trained

pytestmark = pytest.mark.usefixtures("one_thread")


def made(text, steps=3):
    return trained(text, steps)


def rows_of(loop, step):
    """(n, E) expanded features and (n,) labels of a step's images, without augmentation; a place a row."""
    samples, images = loop.scenario.training, loop.scenario.experiences[step].images
    rows, labels = [], []
    matrix = loop.network.heads.matrix.double().numpy()
    for index in images.indices:
        sample = samples.readers[step].read(int(index))
        mean, std = (part.view(1, 3, 1, 1) for part in loop.normalisation)
        image = (sample.image[None] / 255 - mean) / std
        with torch.no_grad():
            decoded = loop.network.eval().backbone(image.float()).decoded[0].double().numpy()  # (D, h, w)
        target = images.table[sample.mask.long()].numpy()
        stride = target.shape[0] // decoded.shape[1]
        rows.append(np.maximum(decoded.reshape(len(matrix), -1).T @ matrix, 0))
        labels.append(target[stride // 2 :: stride, stride // 2 :: stride].ravel())
    return np.concatenate(rows), np.concatenate(labels)


def test_steps_add_up_to_the_ridge_regression_of_all_their_labels_at_once():
    """With nothing named in the background: threshold 1 is above every sigmoid."""
    loop = made("analytic(width=40,gamma=3,threshold=1,background=0.25)")
    rows, labels = map(np.concatenate, zip(*(rows_of(loop, step) for step in range(3)), strict=True))
    rows, labels = rows[labels != 255], labels[labels != 255]
    assert set(labels) == {0, 1, 2, 3, 4}
    weighed = rows.T * np.where(labels == 0, 0.25, 1)
    expected = np.linalg.solve(weighed @ rows + 3 * np.eye(40), weighed @ np.eye(5)[labels])
    np.testing.assert_allclose(loop.network.heads.solution.numpy(), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(loop.strategy.state_dict()["cross"], weighed @ np.eye(5)[labels], rtol=1e-5, atol=1e-6)


def test_steps_are_one_batch(monkeypatch):
    """All that three steps add up, in one sum and one solution, to 1e-9."""
    seen, added = [], gram
    monkeypatch.setattr(analytic, "gram", lambda *of, **more: seen.append(of) or added(*of, **more))
    loop = made("analytic(width=40,threshold=1,background=1)")
    phi, labels = map(torch.cat, zip(*seen, strict=True))
    whole = ridge(*gram(phi, labels, classes=5), gamma=1.0)
    state = loop.strategy.state_dict()
    assert (ridge(state["square"], state["cross"], gamma=1.0) - whole).abs().max() < 1e-9


def test_no_weight_and_no_statistic_moves_after_step_0_and_new_classes_bring_no_weights():
    loop = made("analytic", steps=1)
    before = {name: value.clone() for name, value in loop.network.state_dict().items()}
    solution = loop.network.heads.solution.clone()
    loop.train(loop.scenario.experiences[1:])
    after = loop.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert loop.iterations == 0
    assert loop.network.n_outputs == loop.network.heads.solution.shape[1] == 5
    assert not torch.equal(loop.network.heads.solution[:, :3], solution)


def test_scores_of_the_network_are_those_of_the_solution():
    loop = made("analytic", steps=2)
    output = loop.network.eval()(torch.rand(2, 3, 32, 48))
    rows = np.maximum(np.einsum("bdhw,de->bhwe", output.decoded.detach().numpy(), loop.network.heads.matrix.numpy()), 0)
    expected = np.einsum("bhwe,ec->bchw", rows, loop.network.heads.solution.numpy())
    np.testing.assert_allclose(output.coarse.detach().numpy(), expected, rtol=1e-3, atol=1e-5)
    assert output.logits.shape == (2, 4, 32, 48)


def test_the_background_alone_is_named_where_the_score_is_high():
    scores = torch.tensor([[[0.1, 0.9, 0.0], [0.3, 0.35, 0.0], [0.9, 0.1, 0.2], [0.0, 0.2, 0.8], [0.0, 0.9, 0.0]]])
    labels = torch.tensor([[0, 0, 0, 3, 255]])
    kept = labels.clone(), scores.clone()
    assert name_background(labels, scores).tolist() == [[1, 0, 0, 3, 255]]  # raw scores from 0.41 are believed
    assert name_background(labels, scores, threshold=1.0).equal(labels)
    assert name_background(labels, scores, threshold=0.0).tolist() == [[1, 1, 0, 3, 255]]
    assert labels.equal(kept[0])
    assert scores.equal(kept[1])


def test_threshold_changes_the_sums_of_later_steps_alone():
    believing, doubting = (
        made(f"analytic(threshold={t},background=1)", steps=2).strategy.state_dict() for t in (0.5, 1.0)
    )
    assert torch.equal(believing["square"], doubting["square"])
    assert not torch.equal(believing["cross"], doubting["cross"])


def test_the_head_is_solved_again_from_its_state():
    loop = made("analytic")
    again = made("analytic", steps=1)
    again.strategy.load_state_dict(loop.strategy.state_dict())
    assert torch.equal(again.network.heads.solution, loop.network.heads.solution)
    assert loop.strategy.stored_bytes() == 8 * 1024 * (1024 + 5)
    again = made("analytic", steps=0)
    again.enter(again.scenario.experiences[0])
    with pytest.raises(RunError, match="sums of analytic"):
        again.strategy.predict(again.network.eval()(torch.rand(1, 3, 32, 32)))


def test_plugins_are_refused():
    with pytest.raises(SettingError, match="plugins do nothing"):
        made("analytic+replay", steps=0)
