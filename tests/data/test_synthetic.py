import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as run_length
from pycocotools.coco import COCO

from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.synthetic import CLASSES, draw_shapes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return draw_shapes(60, seed=3, out=tmp_path_factory.mktemp("shapes"))


def masks_of(record):
    return [run_length.decode(dict(code)).astype(bool) for code in record.segmentations or ()]


def folder_of(dataset):
    return Path(dataset[0].path).parent


def bytes_by_name(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_second_call_writes_the_same_bytes(tmp_path):
    draw_shapes(6, seed=5, out=tmp_path / "a")
    draw_shapes(6, seed=5, out=tmp_path / "b")
    first = bytes_by_name(tmp_path / "a")
    assert len(first) == 7
    assert first == bytes_by_name(tmp_path / "b")


def test_fewer_scenes_are_the_beginning_of_more(tmp_path):
    few, more = draw_shapes(4, out=tmp_path / "few"), draw_shapes(9, out=tmp_path / "more")
    images = bytes_by_name(tmp_path / "more")
    for name, content in bytes_by_name(tmp_path / "few").items():
        assert name == "annotations.json" or content == images[name]
    for a, b in zip(few, more, strict=False):
        assert a.image_id == b.image_id
        assert a.segmentations == b.segmentations
        np.testing.assert_array_equal(a.labels, b.labels)


def test_seeds_give_other_scenes(tmp_path):
    scenes = {
        Path(record.path).read_bytes()
        for seed in range(4)
        for record in draw_shapes(5, seed=seed, out=tmp_path / str(seed))
    }
    assert len(scenes) == 20


def test_boxes_and_areas_are_those_of_the_masks(scenes):
    for record in scenes:
        assert len(record) == len(record.segmentations or ()) == len(record.areas)
        for mask, box, area in zip(masks_of(record), record.boxes, record.areas, strict=True):
            rows, columns = np.nonzero(mask)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_array_equal(box, expected)
            assert area == mask.sum()


def test_masks_are_what_is_seen(scenes):
    """Masks do not share pixels, and pixels of a shape are more colourful than the clutter."""
    inside, outside = [], []
    for record in scenes:
        owners = sum((mask.astype(int) for mask in masks_of(record)), np.zeros((160, 160), int))
        assert owners.max(initial=0) <= 1
        saturation = np.ptp(cv2.imread(record.path).astype(int), axis=2)
        inside.append(saturation[owners == 1])
        outside.append(saturation[owners == 0])
    assert np.percentile(np.concatenate(inside), 10) > np.percentile(np.concatenate(outside), 90)


def test_shapes_overlap_and_stay_recognisable(scenes):
    objects = [(record, i) for record in scenes for i in range(len(record))]
    overlapping = sum(
        bool((run_length.iou(_xywh(record), _xywh(record), [0] * len(record))[i] > 0).sum() > 1)
        for record, i in objects
    )
    assert overlapping > len(objects) / 4
    # a star of radius 8 squeezed by 0.85 covers 10/2 * sin(36 deg) * 0.45 * 64 * 0.85 = 72 pixels
    assert min(record.areas.min() for record in scenes if len(record)) > 72 / 2 - 8


def _xywh(record):
    return np.concatenate(
        [record.boxes[:, :2], record.boxes[:, 2:] - record.boxes[:, :2]], axis=1
    ).astype(float)


@pytest.mark.parametrize(("label", "low", "high"), [(0, 0.74, 0.82), (1, 0.28, 0.52)])
def test_labels_say_which_shape_it_is(tmp_path, label, low, high):
    """The share of its box that a whole circle fills is pi/4; a triangle fills at most half."""
    shares = []
    for record in draw_shapes(60, max_shapes=1, out=tmp_path):
        for mask, box, kind in zip(masks_of(record), record.boxes, record.labels, strict=True):
            inside = box.min() > 0 and box.max() < 160
            if kind == label and inside and np.ptp(box[[0, 2]]) > 25:
                shares.append(mask.sum() / np.prod(box[2:] - box[:2]))
    assert len(shares) >= 3
    assert low < min(shares) <= max(shares) < high


def test_every_class_and_empty_scenes_occur(tmp_path):
    scenes = draw_shapes(150, size=(64, 96), out=tmp_path)
    counts = np.bincount(np.concatenate([record.labels for record in scenes]), minlength=4)
    assert len(counts) == len(CLASSES)
    assert counts.min() > 0.15 * counts.sum()
    assert 1 <= sum(len(record) == 0 for record in scenes) <= 15
    assert scenes.max_objects <= 6
    assert {cv2.imread(record.path).shape for record in scenes} == {(64, 96, 3)}


def test_the_coco_file_reads_back_equal(scenes):
    read = load_coco(folder_of(scenes) / "annotations.json")
    assert read.classes == scenes.classes == CLASSES
    assert not read.problems
    for a, b in zip(scenes, read, strict=True):
        assert (a.image_id, a.height, a.width) == (b.image_id, b.height, b.width)
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert (a.segmentations is None) == (b.segmentations is None)
        for x, y in zip(masks_of(a), masks_of(b), strict=True):
            np.testing.assert_array_equal(x, y)


def test_pycocotools_reads_the_file(scenes):
    coco = COCO(folder_of(scenes) / "annotations.json")
    assert len(coco.imgs) == len(scenes)
    record = next(record for record in scenes if len(record))
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=record.image_id))
    for annotation, mask in zip(annotations, masks_of(record), strict=True):
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)


def test_a_new_temporary_folder_by_default():
    first, second = draw_shapes(1), draw_shapes(1)
    assert folder_of(first) != folder_of(second)


def test_an_earlier_call_is_overwritten_and_other_files_are_left_alone(tmp_path):
    draw_shapes(2, seed=1, out=tmp_path)
    draw_shapes(2, seed=2, out=tmp_path)
    assert len(json.loads((tmp_path / "annotations.json").read_text())["images"]) == 2
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    before = bytes_by_name(tmp_path)
    with pytest.raises(FileExistsError, match=r"holiday\.jpg"):
        draw_shapes(2, seed=3, out=tmp_path)
    assert bytes_by_name(tmp_path) == before


def test_someone_elses_annotations_are_not_overwritten(tmp_path):
    (tmp_path / "annotations.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"annotations\.json"):
        draw_shapes(1, out=tmp_path)
    assert (tmp_path / "annotations.json").read_text() == "{}"


def test_a_file_as_folder_is_refused(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(FileExistsError, match="not a folder"):
        draw_shapes(1, out=tmp_path / "x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count .* 0"),
        ({"count": 2.5}, r"count .* 2\.5"),
        ({"count": 1, "seed": -1}, "seed .* -1"),
        ({"count": 1, "max_shapes": 0}, "max_shapes .* 0"),
        ({"count": 1, "size": (31, 64)}, r"size .* \(31, 64\)"),
        ({"count": 1, "size": 64}, "size .* 64"),
        ({"count": 1, "size": (64.0, 64.0)}, "size .* 64"),
    ],
)
def test_bad_arguments_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_shapes(**arguments, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_smallest_size(tmp_path):
    for record in draw_shapes(10, size=(32, 32), out=tmp_path):
        assert len(record) == 0 or record.boxes.max() <= 32
