import itertools

import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.comparison import timing
from rcnn_keras.comparison.timing import time_stages


@pytest.fixture(scope="module")
def dataset(scenes):
    proposals = {n: np.array([[4, 4, 40, 40], [10, 0, 60, 30]], np.float32) for n in range(1, 7)}
    return rk.data.load_coco(scenes / "annotations.json").with_proposals(proposals)


def inputs_of(model, dataset):
    return next(iter(model._sized(dataset[:1].batches(1)).tf_dataset()))[0]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("rcnn", {"regions"}), ("fast_rcnn", {"features", "regions"})],
)
def test_which_stages_a_detector_on_given_proposals_has(kind, expected, make_small, dataset):
    model = make_small(kind, dataset.classes)
    found = time_stages(model, inputs_of(model, dataset), repeats=2)
    assert set(found) == expected | {"cpu", "boxes"}
    assert all(seconds > 0 for seconds in found.values())
    assert found["boxes"] == 2


def test_the_stages_one_after_the_other_are_the_detector(make_small, dataset, monkeypatch):
    """The last stage's result, of Mask R-CNN, is what the model as a whole gives."""
    model = make_small("mask_rcnn", dataset.classes)
    rng = np.random.default_rng(0)
    head = model.box_head
    for layer in (head.class_logits, head.box_deltas):  # so that scores differ
        layer.set_weights([rng.normal(0, 0.5, w.shape) for w in layer.weights])
    inputs = inputs_of(model, dataset)
    results = []

    def once(function, repeats, *arguments):
        results.append(function(*arguments))
        return 0.5, 0.25, results[-1]

    monkeypatch.setattr(timing, "_median", once)
    found = time_stages(model, inputs, repeats=1)
    assert 0 < found.pop("boxes") <= 20
    assert found == {
        "cpu": 1.0,
        "features": 0.5,
        "proposals": 0.5,
        "regions": 0.5,
        "masks": 0.5,
    }
    _, _, boxes, masks = results
    expected = tf.function(lambda x: model(x, training=False))(inputs)
    assert int(expected["num_detections"][0]) > 0
    np.testing.assert_allclose(boxes["boxes"], expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(boxes["scores"], expected["scores"], atol=1e-5)
    np.testing.assert_allclose(masks, expected["masks"], atol=1e-4)


def test_the_median_of_the_repeats_until_a_minute_is_over(monkeypatch):
    def clocked(*seconds):
        """A clock under which the calls of a function take these seconds."""
        ticks = itertools.chain.from_iterable((0.0, s) for s in seconds)
        monkeypatch.setattr(timing.time, "perf_counter", lambda: next(ticks))
        monkeypatch.setattr(timing.time, "process_time", lambda: 0.0)
        calls = []
        median, _, last = timing._median(lambda: calls.append(1) or len(calls), 3)
        assert last == len(calls)
        return median, len(calls)

    assert clocked(3.0, 1.0, 2.0) == (2.0, 3)
    assert clocked(61.0) == (61.0, 1)
    assert clocked(40.0, 30.0) == (35.0, 2)


def test_images_are_spread_evenly(dataset):
    assert [record.image_id for record in timing.spread(dataset, 3)] == [1, 3, 6]
    assert len(timing.spread(dataset, 99)) == 6


def test_the_search_is_timed_on_decoded_images(dataset):
    seen = []
    assert timing.time_search(lambda image: seen.append(image.shape), dataset[:2], repeats=3) > 0
    assert seen == [(64, 64, 3)] * 8  # a warm-up and three runs on each image


def test_the_machine_is_described():
    found = timing.circumstances(threads=3)
    assert "3 threads" in found["processor"]
    assert f"tensorflow {tf.__version__}" in found["versions"]
