"""Masks against pycocotools, Pillow, torchvision's stored numbers and hand-worked ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from rcnn_keras.data import DetectionDataset, Record, load_coco
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.masks import (
    check_masks,
    decode_mask,
    encode_masks,
    malformed,
    paste_masks,
    record_masks,
)

TORCHVISION = np.load(Path(__file__).parent / "torchvision_masks.npz")
BOXES, SIZE = TORCHVISION["boxes"], tuple(TORCHVISION["size"].tolist())


def random_mask(rng, height, width):
    mask = np.zeros((height, width), bool)
    for _ in range(4):
        row, column = rng.integers(0, height), rng.integers(0, width)
        mask[row : row + 9, column : column + 7] ^= True
    return mask


def compressed(mask):
    return rle.encode(np.asfortranarray(mask.astype(np.uint8)))


def run_lengths(mask):
    """Column by column, zeros first; slow and plain."""
    runs, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 9), (40, 60)])
def test_all_spellings_of_run_lengths(shape):
    rng = np.random.default_rng(0)
    for mask in (random_mask(rng, *shape), np.zeros(shape, bool), np.ones(shape, bool)):
        code = compressed(mask)
        for counts in (code["counts"], code["counts"].decode(), run_lengths(mask)):
            decoded = decode_mask({"size": list(shape), "counts": counts}, *shape)
            assert decoded.dtype == bool
            np.testing.assert_array_equal(decoded, mask)


def test_packed_run_lengths_of_any_image_are_sound_for_its_size_alone():
    rng = np.random.default_rng(1)
    for density in (0, 0.001, 0.1, 0.5, 1):
        mask = rng.random((37, 301)) < density
        code = compressed(mask) | {"size": [37, 301]}
        assert malformed(code, (37, 301)) is None
        assert malformed(code | {"size": [37, 300]}, (37, 300))[0] == "segmentation.counts"


def test_polygons_cover_the_pixels_inside_them():
    square = [10, 5, 30, 5, 30, 25, 10, 25]
    expected = np.zeros((40, 60), bool)
    expected[5:25, 10:30] = True
    np.testing.assert_array_equal(decode_mask([square], 40, 60), expected)
    expected[30:35, 50:60] = True  # beyond the border too
    two = [square, [50.0, 30.0, 70.0, 30.0, 70.0, 35.0, 50.0, 35.0]]
    np.testing.assert_array_equal(decode_mask(two, 40, 60), expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([], "segmentation in an image of 60x40 pixels: []"),
        ([[1, 2, 3, 4]], r"segmentation\.0 .* \[1, 2, 3, 4\]"),
        ([[1, 2, 3, 4, 5, 1e9]], r"segmentation\.0"),
        ({"size": [40, 61], "counts": [2440]}, r"segmentation\.size .* \[40, 61\]"),
        ({"size": [40, 60], "counts": [2399]}, r"segmentation\.counts"),
        ({"size": [40, 60], "counts": "T3b1YV2"}, r"segmentation\.counts .* 'T3b1YV2'"),
    ],
)
def test_malformed_segmentations_never_reach_pycocotools(segmentation, message):
    with pytest.raises(ValueError, match=message.replace("[]", r"\[\]")):
        decode_mask(segmentation, 40, 60)
    record = Record(1, "a.png", 40, 60, [[0, 0, 9, 9]] * 2, [0, 0], [1, 0], (None, segmentation))
    with pytest.raises(ValueError, match=r"a\.png: object 1: malformed segmentation"):
        check_masks(record)


def test_only_crowd_regions_may_have_no_segmentation():
    polygon = [[0, 0, 9, 0, 9, 9]]
    check_masks(Record(1, "a.png", 40, 60, [[0, 0, 9, 9]] * 2, [0, 0], [0, 1], (polygon, None)))
    for segmentations in (None, (polygon, None)):
        record = Record(1, "a.png", 40, 60, [[0, 0, 9, 9]] * 2, [0, 0], [1, 0], segmentations)
        with pytest.raises(ValueError, match=r"a\.png: object 1 has no segmentation"):
            check_masks(record)


@pytest.mark.parametrize("size", [(31, 45), (20, 13), (64, 99), (1, 1)])
def test_record_masks_are_pillows(size):
    rng = np.random.default_rng(2)
    masks = [random_mask(rng, 31, 45) for _ in range(3)]
    segmentations = [*map(compressed, masks), None]
    record = Record(1, "a.png", 31, 45, [[0, 0, 9, 9]] * 4, [0] * 4, [False] * 4, segmentations)
    packed = record_masks(record, *size)
    assert packed.shape == (4, size[0], -(-size[1] // 8))
    for mask, rows in zip(masks, packed, strict=False):
        gray = Image.fromarray(mask.astype(np.uint8) * 255)
        resized = np.asarray(gray.resize(size[::-1], Image.Resampling.BILINEAR)).astype(int)
        clear = np.abs(resized - 127.5) > 1.5  # a window of the image may round to the next gray
        found = np.unpackbits(rows, axis=1, count=size[1])
        np.testing.assert_array_equal(found[clear], resized[clear] > 127)
    assert not packed[3].any()


@pytest.mark.parametrize("side", [28, 14])
def test_pasted_masks_are_torchvisions(side):
    masks, expected = TORCHVISION[f"masks{side}"], TORCHVISION[f"pasted{side}"]
    pasted = paste_masks(masks, BOXES, SIZE)
    assert pasted.dtype == np.float32
    np.testing.assert_allclose(pasted, expected, atol=1e-5)
    for threshold in (0.3, 0.5):
        above = paste_masks(masks, BOXES, SIZE, threshold)
        assert above.dtype == bool
        np.testing.assert_array_equal(above, expected > threshold)


def test_a_pasted_mask_equals_one_by_hand():
    # 2 positions a side in a box of 4 pixels: the box grows to 8, -1..7, cut to pixels -1..7
    pasted = paste_masks(np.ones((1, 2, 2)), np.float32([[1, 1, 5, 5]]), (6, 9))
    along = np.interp((np.arange(0, 9) + 1 + 0.5) * 4 / 9 - 0.5, range(4), [0, 1, 1, 0])
    along[8:] = 0  # behind the box
    np.testing.assert_allclose(pasted[0], along[:6, None] * along, atol=1e-6)


def test_run_lengths_of_pasted_masks():
    masks = np.concatenate([TORCHVISION["masks28"], np.ones((2, 28, 28))])
    boxes = np.concatenate([BOXES, [[0, 0, SIZE[1], SIZE[0]], [-9, -9, 99, 99]]])
    for threshold in (0.2, 0.5, 0.9999):
        codes = encode_masks(masks, boxes, SIZE, threshold)
        assert json.loads(json.dumps(codes)) == codes
        expected = paste_masks(masks, boxes, SIZE, threshold)
        for code, mask in zip(codes, expected, strict=True):
            assert code == {**compressed(mask), "counts": compressed(mask)["counts"].decode()}


@pytest.mark.parametrize(
    "box", [[-60, 10, -20, 30], [10, 60, 30, 90], [90, 10, 99, 20], [10, -30, 20, -9]]
)
def test_a_box_outside_the_image_has_no_pixels(box):
    arguments = np.ones((1, 28, 28)), np.float32([box]), SIZE
    assert not paste_masks(*arguments).any()
    assert rle.area(encode_masks(*arguments)).tolist() == [0]


def test_no_masks_give_empty_arrays():
    empty = np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), (5, 6)
    assert paste_masks(*empty).shape == (0, 5, 6)
    assert paste_masks(*empty, 0.5).dtype == bool
    assert encode_masks(*empty) == []


@pytest.mark.parametrize(
    ("masks", "boxes", "message"),
    [
        (np.ones((2, 28, 28)), np.ones((3, 4)), r"not \(2, 28, 28\) and \(3, 4\)"),
        (np.ones((2, 28, 14)), np.ones((2, 4)), r"\(2, 28, 14\)"),
        (np.ones((1, 28, 28)), [[0, 0, np.inf, 1]], r"not finite: \[0\.0, 0\.0, inf, 1\.0\]"),
    ],
)
def test_arrays_that_do_not_fit(masks, boxes, message):
    for function in (paste_masks, encode_masks):
        with pytest.raises(ValueError, match=message):
            function(masks, boxes, SIZE)


@pytest.fixture
def detections():
    n = len(BOXES)
    scores = np.linspace(0.9, 0.1, n, dtype=np.float32)
    return Detections(BOXES, scores, np.zeros(n, int), ["a"], SIZE, TORCHVISION["masks28"])


def test_masks_of_detections(detections):
    expected = TORCHVISION["pasted28"]
    np.testing.assert_allclose(detections.soft_masks(), expected, atol=1e-5)
    np.testing.assert_array_equal(detections.bool_masks(), expected > 0.5)
    np.testing.assert_array_equal(detections.bool_masks(0.2), expected > 0.2)
    decoded = rle.decode(detections.rle_masks(0.2)).transpose(2, 0, 1)
    np.testing.assert_array_equal(decoded, expected > 0.2)


def test_detections_above_a_score_keep_their_masks(detections):
    above = detections.above(0.5)
    count = int((detections.scores >= 0.5).sum())
    np.testing.assert_array_equal(above.masks, detections.masks[:count])
    np.testing.assert_array_equal(above.boxes, detections.boxes[:count])
    assert (above.classes, above.image_size) == (["a"], SIZE)


def test_detections_without_masks():
    boxes = Detections(BOXES, np.ones(len(BOXES)), np.zeros(len(BOXES), int), ["a"], SIZE)
    assert boxes.above(0.5).masks is None
    for function in (boxes.bool_masks, boxes.soft_masks, boxes.rle_masks):
        with pytest.raises(ValueError, match="have no masks"):
            function()
    with pytest.raises(ValueError, match="2 masks for 1 boxes"):
        Detections(BOXES[:1], np.ones(1), np.zeros(1, int), ["a"], SIZE, np.ones((2, 28, 28)))


@pytest.mark.parametrize(("name", "crowds"), [("nuclei", 0), ("coco_by", 1)])
def test_real_segmentations_are_pycocotools(shared_data, name, crowds, capsys):
    file = shared_data / name / "val.json"
    dataset, reference = load_coco(file), COCO(str(file))
    seen = 0
    for record in dataset:
        annotations = reference.imgToAnns[record.image_id]
        if len(record) == len(annotations):
            check_masks(record)
            packed = record_masks(record, record.height, record.width)
            masks = np.unpackbits(packed, axis=2, count=record.width)
            for mask, annotation in zip(masks, annotations, strict=True):
                np.testing.assert_array_equal(mask, reference.annToMask(annotation))
            seen += len(record)
    assert seen > 100
    assert sum(int(record.crowd.sum()) for record in dataset) >= crowds


@pytest.mark.parametrize("name", ["nuclei", "coco_by"])
def test_real_masks_in_batches(shared_data, name):
    dataset = load_coco(shared_data / name / "val.json")
    # those with a crowd region first
    records = sorted(dataset, key=lambda record: not record.crowd.any())[:4]
    dataset = DetectionDataset(records, dataset.classes)
    apart = []
    for inputs, targets in dataset.batches(2, min_size=160, max_size=300, masks=True):
        height, width = inputs["images"].shape[1:3]
        masks = np.unpackbits(targets["masks"], axis=-1).astype(bool)
        assert masks.shape == (2, dataset.max_objects, height, width)
        for one, boxes, labels in zip(masks, targets["boxes"], targets["labels"], strict=True):
            assert not one[labels == -1].any()
            for mask, (x1, y1, x2, y2) in zip(one, boxes.numpy(), strict=True):
                rows, columns = np.nonzero(mask)
                if len(rows):
                    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                    apart.append(np.abs(np.array(found) - [x1, y1, x2, y2]).max())
    # The boxes are the masks', but for thin ends that are less than half of a smaller pixel.
    assert len(apart) > 30
    assert np.median(apart) < 1
    assert np.quantile(apart, 0.9) < 2.5
