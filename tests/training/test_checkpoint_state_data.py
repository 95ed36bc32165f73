"""What makes a training's data other data, and what does not."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import rcnn_keras as rk
from rcnn_keras.data import DetectionDataset
from rcnn_keras.training.checkpoint_state import batches_fingerprint


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return rk.data.draw_shapes(3, size=(32, 32), out=tmp_path_factory.mktemp("scenes"))


def changed(dataset, **parts):
    """The dataset with another second record."""
    records = list(dataset)
    records[1] = replace(records[1], **parts)
    return DetectionDataset(records, dataset.classes)


def differing(a, b):
    first, second = batches_fingerprint(a), batches_fingerprint(b)
    return {name for name in {*first, *second} if first.get(name) != second.get(name)}


def of(dataset, *, masks=False, proposals=False, **how):
    batches = dataset.batches(**({"batch_size": 2, "augment": rk.data.RandomFlip()} | how))
    return batches.with_masks(masks).with_proposals(proposals)


def test_the_folder_does_not_count(scenes, tmp_path):
    shutil.copytree(scenes[0].path.rsplit("/", 1)[0], tmp_path / "moved")
    moved = rk.data.load_coco(tmp_path / "moved" / "annotations.json")
    assert differing(of(scenes, masks=True), of(moved, masks=True)) == set()


def test_what_decides_on_a_batch_counts(scenes):
    boxes = scenes[1].boxes + np.float32(0.25)
    assert differing(of(scenes), of(changed(scenes, boxes=boxes))) == {"objects"}
    assert differing(of(scenes), of(changed(scenes, image_id=99))) == {"images"}
    fewer = scenes[:2]
    assert "number of images" in differing(of(scenes), of(fewer))
    settings = {"batch_size": 1, "shuffle": True, "seed": 1, "min_size": 40, "max_objects": 50}
    for name, value in settings.items():
        assert differing(of(scenes), of(scenes, **{name: value})) == {name}
    assert differing(of(scenes), of(scenes, augment=rk.data.RandomFlip(vertical=True))) == {
        "augment"
    }


def test_masks_and_proposals_count_where_they_are_read(scenes):
    polygons = [[[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]] for _ in scenes[1].labels]
    other = changed(scenes, segmentations=tuple(polygons))
    assert differing(of(scenes), of(other)) == set()
    assert differing(of(scenes, masks=True), of(other, masks=True)) == {"segmentations"}
    proposed = [
        scenes.with_proposals({r.image_id: np.array([[0, 0, 9, x]], "f4") for r in scenes})
        for x in (8, 9)
    ]
    assert differing(*(of(part, proposals=True) for part in proposed)) == {"proposals"}


def test_other_pixels_count(scenes, tmp_path):
    shutil.copytree(scenes[0].path.rsplit("/", 1)[0], tmp_path / "moved")
    moved = rk.data.load_coco(tmp_path / "moved" / "annotations.json")
    with open(moved[0].path, "ab") as file:
        file.write(b"\0")
    assert differing(of(scenes), of(moved)) == {"images"}
    pixels = np.zeros((32, 32, 3), "u1")
    drawn = [changed(scenes, pixels=pixels), changed(scenes, pixels=pixels + np.uint8(1))]
    assert differing(*map(of, drawn)) == {"images"}


def test_functions_count_by_name(scenes):
    def mine(sample, seed):
        return sample

    text = batches_fingerprint(of(scenes, augment=rk.data.Compose(rk.data.RandomFlip(), mine)))[
        "augment"
    ]
    assert "mine" in text
    assert "0x" not in text
