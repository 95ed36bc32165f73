"""Several scales: one an image in training, one a proposal in `detect_at_scales`."""

import keras
import numpy as np
import pytest

import rcnn_keras as rk
from rcnn_keras.models.inference import nearest_scales

SIZES = (64, 160, 240)


def small(classes, **arguments):
    """A Fast R-CNN that keeps every detection."""
    small = {
        "roi_pooling": "align",
        "box_units": 16,
        "max_size": 320,
        "min_size": 96,
        "box_score_thresh": 0.0,
        "box_nms_thresh": 1.0,
        "box_detections_per_img": 200,
        "recompute_stages": 0,
    }
    keras.utils.set_random_seed(0)
    return rk.models.FastRCNN("resnet18", classes, **(small | arguments))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two images with proposals of many sizes, the second one without any."""
    drawn = rk.data.draw_shapes(2, size=(96, 128), out=tmp_path_factory.mktemp("scales"))
    corners = np.random.default_rng(0).uniform(0, 88, (9, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 8], axis=1)
    boxes[0] = [0, 0, 128, 96]
    return drawn.with_proposals({drawn[0].image_id: boxes, drawn[1].image_id: np.zeros((0, 4))})


@pytest.fixture(scope="module")
def model(dataset):
    return small(dataset.classes)


def in_order(detections):
    rows = np.column_stack([detections.labels, detections.scores, detections.boxes])
    return rows[np.lexsort(rows.T[::-1])]


def test_the_scale_is_the_one_nearest_to_224_squared():
    boxes = np.array([[0, 0, 224, 224], [10, 10, 122, 122], [0, 0, 56, 224], [0, 0, 8, 8]], "f4")
    sizes = [(500, 500), (1000, 1000), (2000, 2000)]
    # Areas at the three: 224², 448², 896²; 112², 224², 448²; 112², 224², 448²; 8², 16², 32².
    assert nearest_scales(boxes, (500, 500), sizes).tolist() == [0, 1, 1, 2]
    assert nearest_scales(boxes, (500, 1000), [(500, 1000), (1000, 2000)])[0] == 0


def test_each_proposal_is_looked_at_in_its_scale(model, dataset, monkeypatch):
    """Without suppression, detections are those of the plain detector on the scales' shares."""
    image, boxes = dataset[0].path, dataset[0].proposals
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = [sides[:, 0] * sides[:, 1] * (size / 96) ** 2 for size in SIZES]
    chosen = np.abs(np.array(areas) - 224**2).argmin(axis=0)
    assert len(set(chosen)) > 1
    expected = []
    for number, size in enumerate(SIZES):
        monkeypatch.setattr(model, "min_size", size)
        if np.any(chosen == number):
            expected += model.detect(image, proposals=[boxes[chosen == number]])
    found = rk.models.detect_at_scales(model, dataset, SIZES, max_size=320)
    rows = np.concatenate([in_order(detections) for detections in expected])
    np.testing.assert_allclose(
        in_order(found[0]), rows[np.lexsort(rows.T[::-1])], rtol=1e-4, atol=1e-3
    )
    assert len(found[0]) == len(boxes) * len(dataset.classes)
    assert len(found[1]) == 0


def test_one_scale_is_plain_detection(dataset):
    model = small(dataset.classes, box_nms_thresh=0.5)
    for ours, theirs in zip(
        rk.models.detect_at_scales(model, dataset, [96], max_size=320),
        model.detect(dataset),
        strict=True,
    ):
        np.testing.assert_allclose(in_order(ours), in_order(theirs), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_sizes": ()}, "at least one size"),
        ({"min_sizes": (480, 0)}, "whole numbers above 0; received 0"),
        ({"max_size": 2.5}, "received 2.5"),
        ({"images": np.zeros((32, 32, 3), "uint8")}, "has no proposals"),
    ],
)
def test_bad_arguments_are_named(arguments, message, model, dataset):
    arguments = {"images": dataset} | arguments
    with pytest.raises(ValueError, match=message):
        rk.models.detect_at_scales(model, **arguments)


def test_another_model_is_refused(dataset):
    with pytest.raises(ValueError, match="detect_at_scales is of FastRCNN, not of Sequential"):
        rk.models.detect_at_scales(keras.Sequential(), dataset)


def test_training_draws_sizes_and_detection_takes_the_last(dataset, monkeypatch, tmp_path):
    model = small(dataset.classes, min_size=[64, 160, 96])
    assert (model.min_sizes, model.min_size) == ((64, 160, 96), 96)
    given = {}
    monkeypatch.setattr(keras.Model, "fit", lambda self, x, y, **more: given.update(more, x=x))
    model.fit(dataset.batches(1, seed=1), validation_data=dataset.batches(1))

    def sizes(stream):
        return [tuple(inputs["image_sizes"].numpy()[0]) for inputs, _ in stream]

    assert set(sizes(given["x"].take(12))) == {(64, 85), (96, 128), (160, 213)}
    assert sizes(given["validation_data"]) == [(96, 128)] * 2
    model.save(tmp_path / "several.keras")
    again = keras.models.load_model(tmp_path / "several.keras")
    assert again.get_config()["min_size"] == (64, 160, 96)


def test_sizes_above_the_largest_are_refused(dataset):
    with pytest.raises(ValueError, match=r"min_size must be at most max_size=320; received"):
        small(dataset.classes, min_size=(96, 480))
    with pytest.raises(ValueError, match="min_size must be a whole number of at least 1, or a"):
        small(dataset.classes, min_size=(96, 0))
