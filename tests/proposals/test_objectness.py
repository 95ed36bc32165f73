import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest

import rcnn_keras as rk
from rcnn_keras.proposals import Objectness, objectness_windows, sample_windows
from rcnn_keras.proposals.objectness import CUES, Likelihoods
from rcnn_keras.proposals.objectness_cues import overlaps


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    return rk.data.draw_shapes(16, size=(96, 120), out=folder, max_shapes=3)


@pytest.fixture(scope="module")
def objectness(scenes):
    return Objectness.fit(scenes[:10], windows=800)


def recall(proposals, scenes):
    """Share of the objects that the proposals of their images find."""
    found = [
        overlaps(boxes, scene.boxes).max(0) > 0.5
        for boxes, scene in zip(proposals, scenes, strict=True)
    ]
    return np.concatenate(found).mean()


def test_fit_has_likelihoods_of_all_cues(objectness):
    assert list(objectness.cues) == list(CUES)
    assert 0.001 < objectness.prior < 0.2
    for name, cue in objectness.cues.items():
        assert cue.theta in CUES[name][1]


def test_first_proposals_find_more_than_first_windows(objectness, scenes):
    """On scenes that it was not fitted to."""
    scenes = scenes[10:]
    sampled = [sample_windows(scene.height, scene.width, 30) for scene in scenes]
    proposed = [objectness.propose(scene.path, 30, candidates=3000)[0] for scene in scenes]
    assert recall(proposed, scenes) > recall(sampled, scenes) + 0.25


def test_objects_score_higher_than_their_neighbourhood(objectness, scenes):
    higher = []
    for scene in scenes[10:]:
        moved = scene.boxes + np.float32([0.7, 0.7, 0.7, 0.7]) * np.tile(
            scene.boxes[:, 2:] - scene.boxes[:, :2], 2
        )
        inside = (moved[:, 2] <= scene.width) & (moved[:, 3] <= scene.height)
        boxes = np.concatenate([scene.boxes[inside], moved[inside]])
        higher += list(np.greater(*objectness.score(scene.path, boxes).reshape(2, -1)))
    assert len(higher) > 4
    assert np.mean(higher) > 0.7


def test_fit_equals_counting_window_by_window(scenes):
    """Prior and histograms against the definition, window by window."""
    scenes = scenes[:4]
    fitted = Objectness.fit(scenes, windows=200, seed=5)
    values, labels = {name: [] for name in CUES}, []
    for index, scene in enumerate(scenes):
        boxes = np.concatenate([sample_windows(96, 120, 200, 5 + index), scene.boxes])
        image = rk.data.read_image(scene.path)
        for name, (cue, _) in CUES.items():
            values[name] += list(cue(image, boxes, fitted.cues[name].theta))
        labels += [bool(np.any(row > 0.5)) for row in overlaps(boxes, scene.boxes)]
    labels = np.array(labels)
    assert fitted.prior == pytest.approx(labels.mean())
    for name, cue in fitted.cues.items():
        for kind, shares in ((True, cue.object), (False, cue.background)):
            chosen = np.array(values[name])[labels == kind]
            bounds = [-np.inf, *cue.edges, np.inf]
            counts = [
                1 + np.sum((low <= chosen) & (chosen < high))
                for low, high in itertools.pairwise(bounds)
            ]
            np.testing.assert_allclose(shares, np.array(counts) / np.sum(counts))


def test_fit_takes_the_theta_of_the_greatest_posterior(scenes, monkeypatch):
    def cue(image, windows, theta):
        """Separates bright windows only if theta is 2; noise otherwise."""
        means = [
            image[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1].mean()
            for x1, y1, x2, y2 in windows.tolist()
        ]
        noise = np.random.default_rng(0).random(len(windows))
        return np.array(means) if theta == 2 else noise

    image = np.zeros((40, 40, 3), np.uint8)
    image[10:30, 5:25] = 255
    record = replace(scenes[0], pixels=image, height=40, width=40, labels=[0], crowd=[False])
    record = replace(record, boxes=[[5, 10, 25, 30]], segmentations=None, areas=None)
    monkeypatch.setattr("rcnn_keras.proposals.objectness.CUES", {"bright": (cue, (1.0, 2.0, 3.0))})
    fitted = Objectness.fit(rk.data.DetectionDataset([record], scenes.classes), windows=500)
    assert fitted.cues["bright"].theta == 2


def test_score_is_bayes_rule():
    """Worked by hand: prior 1/5 and two cues."""
    flat = np.full((20, 20, 3), 90, np.uint8)  # no contrast and no edges: the lowest bins
    contrast = Likelihoods(1.5, [0.2, 0.4], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5])
    density = Likelihoods(2.0, [0.1], [0.2, 0.8], [0.6, 0.4])
    known = Objectness(0.2, {"color_contrast": contrast, "edge_density": density})
    scores = known.score(flat, np.array([[2, 2, 9, 9], [0, 0, 20, 20]]))
    odds = 0.2 * 0.5 * 0.2, 0.8 * 0.25 * 0.6
    np.testing.assert_allclose(scores, odds[0] / sum(odds), rtol=1e-6)
    assert scores.dtype == np.float32


def test_a_value_equal_to_an_edge_belongs_to_the_bin_above():
    cue = Likelihoods(1.0, [0.0, 1.0], [0.2, 0.3, 0.5], [0.5, 0.3, 0.2])
    ratios = np.log([0.4, 1, 1, 2.5, 2.5])
    np.testing.assert_allclose(cue.log_ratio(np.array([-1, 0, 0.5, 1, 9])), ratios)


def test_proposals_are_sorted_suppressed_and_inside_the_image(objectness, scenes):
    boxes, scores = objectness.propose(scenes[0].path, 50, candidates=2000)
    assert boxes.shape == (50, 4)
    assert boxes.dtype == scores.dtype == np.float32
    assert np.all(np.diff(scores) <= 0)
    np.testing.assert_allclose(objectness.score(scenes[0].path, boxes), scores, rtol=1e-5)
    assert overlaps(boxes, boxes)[~np.eye(50, dtype=bool)].max() <= 0.7 + 1e-5
    again = objectness_windows(scenes[0].path, objectness, count=50, candidates=2000)
    np.testing.assert_array_equal(again, boxes)
    other, _ = objectness.propose(scenes[0].path, 50, candidates=2000, seed=1)
    assert not np.array_equal(other, boxes)


@pytest.mark.parametrize(
    "image",
    [
        np.full((8, 8), 7, np.uint8),
        np.full((8, 8, 3), 255, np.uint8),
        np.random.default_rng(0).integers(0, 255, (50, 40), np.uint8),
        np.random.default_rng(0).integers(0, 255, (1, 40, 3), np.uint8),
        np.zeros((60, 60, 3), np.float32),
    ],
)
def test_gray_flat_and_tiny_images_have_proposals(objectness, image):
    boxes, scores = objectness.propose(image, 20, candidates=300)
    assert 0 < len(boxes) == len(scores) <= 20
    assert np.isfinite(scores).all()
    assert boxes.min() >= 0
    assert np.all(boxes[:, 2:] <= [image.shape[1], image.shape[0]])


def test_a_gray_image_equals_its_three_channels(objectness, scenes):
    gray = rk.data.read_image(scenes[0].path)[..., 1]
    boxes = sample_windows(*gray.shape, 100)
    three = np.repeat(gray[..., None], 3, axis=-1)
    np.testing.assert_array_equal(objectness.score(gray, boxes), objectness.score(three, boxes))


def test_large_images_are_shrunk_for_the_cues(objectness, scenes):
    """An image of 4000 pixels: the same objects, in its own pixels."""
    small = cv2.resize(rk.data.read_image(scenes[0].path), (400, 320))
    large = cv2.resize(small, (4000, 3200), interpolation=cv2.INTER_NEAREST)
    boxes, scores = objectness.propose(small, 20, candidates=500)
    enlarged, same = objectness.propose(large, 20, candidates=500)
    np.testing.assert_allclose(enlarged, boxes * 10, rtol=1e-4, atol=0.01)
    np.testing.assert_allclose(same, scores, atol=1e-5)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"shape \(1, 4, 4, 3\)"),
        (np.full((4, 4, 3), 300.0), "not in 0..255"),
        ("nowhere.png", "nowhere.png: no such file"),
    ],
)
def test_unusable_images_are_refused(objectness, image, message):
    with pytest.raises(rk.data.ImageError, match=message):
        objectness.propose(image)
    with pytest.raises(rk.data.ImageError, match=message):
        objectness.score(image, np.zeros((0, 4)))


def test_unusable_arguments_are_refused(objectness, scenes):
    image = np.zeros((30, 40, 3), np.uint8)
    with pytest.raises(ValueError, match=r"box 0 is .* inside the image of 30x40"):
        objectness.score(image, [[0, 0, 41, 3]])
    with pytest.raises(ValueError, match="not 0 and"):
        objectness.propose(image, 0)
    with pytest.raises(ValueError, match=r"and 1\.5"):
        objectness.propose(image, iou_threshold=1.5)
    with pytest.raises(ValueError, match="not 0 and 5"):
        Objectness.fit(scenes, images=0, windows=5)
    assert objectness.score(image, []).shape == (0,)


def test_fit_without_objects_is_refused(scenes):
    empty = [scene.select(np.zeros(len(scene), bool)) for scene in scenes[:2]]
    for records in (empty, []):
        dataset = rk.data.DetectionDataset(records, scenes.classes)
        with pytest.raises(ValueError, match="no windows of objects"):
            Objectness.fit(dataset)


def test_windows_of_crowds_are_left_out(scenes):
    """Neither the windows of the first object nor it count any more."""
    scene = next(s for s in scenes if len(s) == 2 and overlaps(s.boxes, s.boxes)[0, 1] == 0)
    crowd = replace(scene, crowd=[True, False])
    alone = scene.select([1])
    counts = {}
    for name, record in {"all": scene, "crowd": crowd, "alone": alone}.items():
        fitted = Objectness.fit(rk.data.DetectionDataset([record], scenes.classes), windows=2000)
        counts[name] = fitted.prior
    # the object of both, but less background
    assert counts["alone"] < counts["crowd"] < counts["all"]
