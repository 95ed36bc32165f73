"""Proposals on their way from a file's boxes to the inputs of a batch."""

from dataclasses import replace

import numpy as np
import pytest

from rcnn_keras.data import (
    Compose,
    DetectionDataset,
    RandomFlip,
    RandomTranslation,
    Record,
    ScaleJitter,
)


def noise(number, height, width):
    pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3)).astype("uint8")
    boxes = np.array([[2.0, 3.0, 20.0, 30.0]], "f4")
    return Record(number, f"{number}.png", height, width, boxes, [0], [False], pixels=pixels)


PROPOSALS = {
    1: np.array([[0, 0, 40, 60], [2, 3, 20, 30], [30, 50, 40, 60]], "f4"),
    2: np.array([[10, 5, 50, 25]], "f4"),
    3: np.zeros((0, 4), "f4"),
}


@pytest.fixture
def dataset():
    records = [noise(1, 60, 40), noise(2, 40, 64), noise(3, 50, 50)]
    return DetectionDataset(records, ["thing"]).with_proposals(PROPOSALS)


def test_they_follow_the_resized_image_and_are_padded(dataset):
    inputs, targets = next(iter(dataset.batches(3, min_size=80, proposals=True)))
    assert inputs["proposals"].shape == (3, 3, 4)
    np.testing.assert_array_equal(inputs["num_proposals"], [3, 1, 0])
    sizes = [(120, 80), (80, 128), (80, 80)]
    np.testing.assert_array_equal(inputs["image_sizes"], sizes)
    for i, (record, (height, width)) in enumerate(zip(dataset, sizes, strict=True)):
        ratio = np.array([width / record.width, height / record.height] * 2)
        found = inputs["proposals"][i].numpy()
        count = len(record.proposals)
        np.testing.assert_allclose(found[:count], record.proposals * ratio, rtol=1e-6)
        np.testing.assert_array_equal(found[count:], 0)
    assert "proposals" not in targets


def test_proposals_are_in_a_batch_only_if_asked_for(dataset):
    inputs, _ = next(iter(dataset.batches(3)))
    assert set(inputs) == {"images", "image_sizes", "image_ids"}
    wanted = dataset.batches(3).with_proposals()
    assert "num_proposals" in next(iter(wanted))[0]
    assert "num_proposals" not in next(iter(wanted.with_proposals(False)))[0]
    assert "proposals=True" in repr(wanted)


@pytest.mark.parametrize(
    "augment", [RandomFlip(vertical=True), ScaleJitter(0.5, 2.0), RandomTranslation(0.3)]
)
def test_a_proposal_on_an_object_stays_on_it(augment, dataset):
    """The second proposal of the first image is its object's box, in every augmentation."""
    one = DetectionDataset([replace(dataset[0], proposals=dataset[0].boxes)], ["thing"])
    batches = one.batches(1, augment=augment, proposals=True).tf_dataset(repeat=True)
    seen = set()
    for inputs, targets in batches.take(12):
        if targets["labels"][0, 0] < 0:
            continue  # so little is left of the object that it was dropped
        np.testing.assert_array_equal(inputs["proposals"][0, 0], targets["boxes"][0, 0])
        seen.add(tuple(inputs["proposals"][0, 0].numpy()))
    assert len(seen) > 2


def test_they_are_clipped_and_dropped_without_their_objects(dataset):
    """Objects that go out of sight take no proposal with them, and the other way round."""
    shift = Compose(lambda sample, seed: sample | {"image": sample["image"][:45, :25]}, jitter_by_1)
    inputs, targets = next(iter(dataset[:1].batches(1, augment=shift, proposals=True)))
    assert int(inputs["num_proposals"][0]) == 2  # the third lies beyond the window
    np.testing.assert_array_equal(inputs["proposals"][0, :2], [[0, 0, 25, 45], [2, 3, 20, 30]])
    np.testing.assert_array_equal(targets["labels"], [[0]])


def jitter_by_1(sample, seed):
    return ScaleJitter(1.0, 1.0)(sample, seed)


def test_an_image_without_proposals_is_named(dataset):
    records = [dataset[0], replace(dataset[1], proposals=None)]
    bare = DetectionDataset(records, ["thing"])
    with pytest.raises(ValueError, match=r"2\.png has no proposals: dataset\.with_proposals"):
        bare.batches(1, proposals=True)
    with pytest.raises(ValueError, match=r"2\.png has no proposals"):
        bare.batches(1).with_proposals()


@pytest.mark.parametrize(
    ("proposals", "message"),
    [
        ({1: PROPOSALS[1], 3: PROPOSALS[3]}, r"no proposals for image id 2, 2\.png"),
        (PROPOSALS | {2: [[0, 0, 66, 10]]}, r"2\.png: proposals outside the image of 64 x 40"),
        (PROPOSALS | {2: [[0, np.nan, 6, 10]]}, r"2\.png: proposals outside the image"),
        (PROPOSALS | {2: [0, 0, 6, 10]}, r"2\.png: proposals have shape \(4,\), not \(r, 4\)"),
    ],
)
def test_proposals_that_do_not_fit(proposals, message, dataset):
    with pytest.raises(ValueError, match=message):
        dataset.with_proposals(proposals)


def test_most_keeps_the_first_and_views_keep_them(dataset):
    best = dataset.with_proposals(PROPOSALS, most=2)
    np.testing.assert_array_equal(best[0].proposals, PROPOSALS[1][:2])
    assert best[:2].with_classes(["thing"])[1].proposals.shape == (1, 4)
