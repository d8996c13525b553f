"""The drawn rooms: normals are those of the depth, labels those of the shapes, files those of the drawing."""

import hashlib

import numpy as np
import pytest

from data_trees import few_drawn
from densecl.data import drawing, open_dataset
from densecl.data.rays import FOCAL, SIDE, Solids, hit_balls, hit_boxes, hit_cylinders, rays_of
from densecl.data.sets.scenes import CLASSES, Scenes
from densecl.data.verify import verify

# SHA-256 of images, then masks, of train, val and test, split by split. `version` is its beginning.
PIXELS = "6db6e4f7b4f6b471a686ba2a56e6bf81779f96704263c025ab0f893455ddaf1b"


@pytest.fixture(scope="module")
def rooms():
    return Scenes.draw(40, 5)


def test_pixels_are_pinned():
    digest = hashlib.sha256()
    for split in ("train", "val", "test"):
        drawn = Scenes.draw(Scenes.counts[split], Scenes.seeds[split])
        digest.update(drawn.images.tobytes())
        digest.update(drawn.masks.tobytes())
    assert digest.hexdigest() == PIXELS
    assert PIXELS.startswith(Scenes.version)


def points(depth):
    """Points (N, 64, 64, 3) that a depth gives: x to the right, y up, z to the viewer."""
    offset = (np.arange(SIDE) + 0.5 - SIDE / 2) / FOCAL
    x, y = np.meshgrid(offset, -offset)
    return depth[..., None].astype(np.float64) * np.stack([x, y, -np.ones_like(x)], -1)


def test_normals_are_the_gradient_of_depth_where_it_is_smooth(rooms):
    """The cross product of the steps from neighbour to neighbour, where all of them lie on one surface."""
    p = points(rooms.depth)
    across, along = p[:, 1:-1, 2:] - p[:, 1:-1, :-2], p[:, :-2, 1:-1] - p[:, 2:, 1:-1]
    normals = np.cross(across, along)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    inner = rooms.normals[:, 1:-1, 1:-1]
    neighbours = [rooms.normals[:, 1 + dy : 63 + dy, 1 + dx : 63 + dx] for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0))]
    z = [
        1 / rooms.depth[:, 1 + dy : 63 + dy, 1 + dx : 63 + dx] for dy, dx in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
    ]
    bend = np.maximum(np.abs(z[1] + z[2] - 2 * z[0]), np.abs(z[3] + z[4] - 2 * z[0]))  # 0 on a plane
    flat = (bend < 1e-5) & np.all([(inner * other).sum(-1) > 1 - 1e-6 for other in neighbours], 0)
    smooth = (bend < 2e-3) & np.all([(inner * other).sum(-1) > 0.9 for other in neighbours], 0)
    angles = np.degrees(np.arccos((normals * inner).sum(-1).clip(-1, 1)))
    assert (flat.mean() > 0.6, smooth.mean() > 0.8) == (True, True)
    assert angles[flat].max() < 0.1
    round_ = smooth & ~flat & np.isin(rooms.masks[:, 1:-1, 1:-1], (3, 4))
    assert round_.sum() > 1000
    assert np.median(angles[round_]) < 1.5
    assert np.quantile(angles[round_], 0.95) < 6


def test_every_surface_looks_at_the_camera(rooms):
    assert np.abs(np.linalg.norm(rooms.normals, axis=-1) - 1).max() < 1e-6
    assert (points(rooms.depth) * rooms.normals).sum(-1).max() <= 0


def test_the_floor_is_level_and_every_class_is_common(rooms):
    shares = np.bincount(rooms.masks.ravel(), minlength=1 + len(CLASSES)) / rooms.masks.size
    assert shares.min() > 0.02
    assert len(shares) == 1 + len(CLASSES)
    for image in range(5):
        floor = rooms.normals[image][rooms.masks[image] == 1]
        assert np.ptp(floor, axis=0).max() < 1e-6


def test_solids_are_hit_where_their_equations_say():
    one = {key: np.array([value]) for key, value in (("across", 0.2), ("ahead", 3.0), ("turn", 0.4))}
    solids = Solids(**one, radius=np.array([0.5]), height=np.array([1.0]), width=np.array([0.3]))
    rays = rays_of(np.array([0.3]))
    sides = {"ball": hit_balls, "cylinder": hit_cylinders, "box": hit_boxes}
    for name, hit in sides.items():
        depth = hit(rays, solids).depth
        seen = np.isfinite(depth)
        x, y, z = rays.directions[:, seen] * depth[seen]
        x, y, z = x - 0.2, y + 1.5, z - 3.0  # from the foot of the solid
        assert seen.sum() > 100
        if name == "ball":
            np.testing.assert_allclose(x * x + (y - 0.5) ** 2 + z * z, 0.25, rtol=1e-9)
        elif name == "cylinder":
            inside = np.sqrt(x * x + z * z) / 0.5
            np.testing.assert_allclose(np.maximum(inside, np.abs(2 * y - 1)), 1, rtol=1e-9)
        else:
            along, ahead = x * np.cos(0.4) - z * np.sin(0.4), x * np.sin(0.4) + z * np.cos(0.4)
            outermost = np.maximum.reduce([np.abs(along) / 0.5, np.abs(ahead) / 0.3, np.abs(2 * y - 1)])
            np.testing.assert_allclose(outermost, 1, rtol=1e-9)


def test_drawing_does_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    whole = Scenes.draw(9, 5)
    monkeypatch.setattr(drawing, "CHUNK", 4)
    assert np.array_equal(Scenes.draw(9, 5).images, whole.images)
    assert np.array_equal(Scenes.draw(9, 5).normals, whole.normals)


def test_files_hold_what_was_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("DENSECL_CACHE", str(tmp_path))
    few_drawn(monkeypatch, 4, 2, 3)
    reader, drawn = open_dataset("scenes", "test"), Scenes.draw(3, Scenes.seeds["test"])
    assert np.array_equal(reader.read(1).image.permute(1, 2, 0).numpy(), drawn.images[1])
    assert np.array_equal(reader.read(1).mask.numpy(), drawn.masks[1])
    np.testing.assert_allclose(reader.of("depth").read(1).mask[0].numpy(), drawn.depth[1], atol=0.00051)
    normals = reader.of("normals").read(1).mask.permute(1, 2, 0).numpy()
    assert np.degrees(np.arccos((normals * drawn.normals[1]).sum(-1).clip(-1, 1))).max() < 0.5
    assert not any(finding.level == "error" for finding in verify("scenes"))
