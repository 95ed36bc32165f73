"""Polygons in a buffer against the lists that they were."""

import copy
import json
import pickle

import numpy as np
import pytest

from rcnn_keras.data import load_coco
from rcnn_keras.data.masks import PolygonBuffer, Polygons, Segmentations

SOUND = [[0.1, 2, 11.25, 2, 11, 22.7], [5, 5, 6, 5, 6, 6.5, 5, 6]]


def test_lists_come_back_as_they_were():
    buffer = PolygonBuffer()
    others = [[[1.5, 2, 3, 4, 5, 6]], SOUND]
    packed = [buffer.add(copy.deepcopy(lists)) for lists in others]
    assert all(isinstance(polygons, Polygons) for polygons in packed)
    assert [polygons.lists() for polygons in packed] == others
    assert [polygons.reach() for polygons in packed] == [6, 22.7]
    assert len(buffer.numbers) == 6 + 6 + 8


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [SOUND[0], [1, 2, 3, 4, 5, "6"]],
        [SOUND[0], [1, 2, 3, 4, 5, 10**400]],
        [[1, 2, 3, 4, 5, True]],
        {"size": [2, 2], "counts": [4]},
    ],
)
def test_what_is_no_polygon_stays(segmentation):
    buffer = PolygonBuffer()
    first = buffer.add(SOUND)
    assert buffer.add(segmentation) is segmentation
    second = buffer.add(SOUND)
    assert first.lists() == second.lists() == SOUND


def test_segmentations_are_what_a_tuple_of_lists_is():
    buffer = PolygonBuffer()
    rle = {"size": [2, 2], "counts": [4]}
    plain = (SOUND, None, rle)
    packed = Segmentations([buffer.add(SOUND), None, rle])
    assert packed == plain
    assert plain == packed
    assert packed != (SOUND, None)
    assert (len(packed), packed[0], packed[-1]) == (3, SOUND, rle)
    assert tuple(packed[1:]) == plain[1:]
    assert packed.take(np.array([2, 0])) == (rle, SOUND)
    assert pickle.loads(pickle.dumps(packed)) == plain
    assert not Segmentations([])


def test_a_file_of_many_objects_gives_what_it_says(file):
    """Records against a plain look into the file; polygons in one buffer, whatever their number."""
    draw = np.random.default_rng(0)
    file.annotations.clear()
    for i in range(200):
        x, y = draw.uniform(0, 30), draw.uniform(0, 20)
        annotation = file.annotation(i + 1, int(draw.choice([11, 12])), 7, [x, y, 9.5, 8.25])
        points = draw.uniform(0, 40, (draw.integers(1, 4), 2 * draw.integers(3, 30)))
        annotation["segmentation"] = points.round(2).tolist()
        annotation["area"] = float(draw.uniform(1, 50))
        if i % 50 == 7:
            annotation["segmentation"] = {"size": [40, 60], "counts": [100, 50, 2250]}
            annotation["iscrowd"] = 1
        file.annotations.append(annotation)
    path = file.write()
    dataset = load_coco(path)
    stated = json.loads(path.read_text())["annotations"]
    for record in dataset:
        own = [a for a in stated if a["image_id"] == record.image_id]
        assert record.segmentations == tuple(a["segmentation"] for a in own)
        assert record.areas.tolist() == [a["area"] for a in own]
        assert record.crowd.tolist() == [a.get("iscrowd") == 1 for a in own]
        boxes = np.array([a["bbox"] for a in own])
        boxes[:, 2:] += boxes[:, :2]
        np.testing.assert_array_equal(record.boxes, boxes.astype("f4"))
        half = record.select(np.arange(len(record)) % 2 == 0)
        assert half.segmentations == tuple(a["segmentation"] for a in own[::2])
    buffers = {
        id(s.buffer) for r in dataset for s in r.segmentations._packed if isinstance(s, Polygons)
    }
    assert len(buffers) == 1
