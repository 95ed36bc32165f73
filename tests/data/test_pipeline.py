"""Batches: order, resizing, padding and resuming, against numpy, OpenCV and hand-worked numbers."""

from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools import mask as rle

from rcnn_keras.data import draw_shapes
from rcnn_keras.data.augmentation import ColorJitter, Compose, RandomFlip, ScaleJitter
from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.pipeline import Batches

SIZES = [(30, 50), (64, 64), (41, 23), (33, 64), (20, 20), (50, 40), (32, 96)]
OBJECTS = [2, 0, 1, 3, 1, 2, 1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    records = []
    for i, ((height, width), n) in enumerate(zip(SIZES, OBJECTS, strict=True)):
        path = folder / f"{i}.png"
        pixels = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (width, height))
        Image.fromarray(pixels).save(path)
        corners = np.sort(rng.uniform(0, 1, (n, 2, 2)), axis=1) * [width, height]
        crowd = np.arange(n) == 1
        records.append(
            Record(
                100 + i, str(path), height, width, corners.reshape(n, 4), np.arange(n) % 2, crowd
            )
        )
    return DetectionDataset(records, ["cell", "dot"])


def read(record):
    return np.asarray(Image.open(record.path))


def ids(batches, **options):
    return [batch["image_ids"].numpy().tolist() for batch, _ in batches.tf_dataset(**options)]


def endless_ids(batches, steps, start_step=0):
    stream = batches.tf_dataset(repeat=True, start_step=start_step).take(steps)
    return [batch["image_ids"].numpy().tolist() for batch, _ in stream]


def assert_same(first, second):
    tf.nest.map_structure(np.testing.assert_array_equal, first, second)


def listed(stream):
    return [tf.nest.map_structure(np.asarray, element) for element in stream]


def test_batches_have_the_documented_shapes_and_types(dataset):
    inputs, targets = next(iter(dataset.batches(3)))
    described = {k: (v.dtype.name, tuple(v.shape)) for k, v in (inputs | targets).items()}
    assert described == {
        "images": ("float32", (3, 64, 64, 3)),
        "image_sizes": ("int32", (3, 2)),
        "image_ids": ("int64", (3,)),
        "boxes": ("float32", (3, 3, 4)),
        "labels": ("int32", (3, 3)),
        "crowd": ("bool", (3, 3)),
    }


def test_native_size_keeps_pixels_and_pads_with_zeros(dataset):
    for (inputs, targets), record in zip(dataset.batches(1), dataset, strict=True):
        height, width = record.height, record.width
        padded = np.zeros((1, -(-height // 32) * 32, -(-width // 32) * 32, 3), np.float32)
        padded[0, :height, :width] = read(record)
        np.testing.assert_array_equal(inputs["images"], padded)
        assert inputs["image_sizes"].numpy().tolist() == [[height, width]]
        assert inputs["image_ids"].numpy().tolist() == [record.image_id]
        n = len(record)
        np.testing.assert_array_equal(targets["boxes"][0, :n], record.boxes)
        assert targets["labels"][0].numpy().tolist() == [*record.labels, *[-1] * (3 - n)]
        assert targets["crowd"][0].numpy().tolist() == [*record.crowd, *[False] * (3 - n)]


def test_batch_is_padded_to_its_own_largest_sides(dataset):
    shapes = [inputs["images"].shape.as_list()[1:3] for inputs, _ in dataset.batches(2)]
    assert shapes == [[64, 64], [64, 64], [64, 64], [32, 96]]


def test_resize_follows_torchvision_and_boxes_follow_the_pixels(dataset):
    # 30 x 50 to min 60, max 75: the longer side binds, the scale is 1.5
    inputs, targets = next(iter(Batches(dataset[:1], 1, min_size=60, max_size=75)))
    assert inputs["image_sizes"].numpy().tolist() == [[45, 75]]
    expected = cv2.resize(read(dataset[0]).astype(np.float32), (75, 45))
    np.testing.assert_allclose(inputs["images"][0, :45, :75], expected, atol=0.02)
    np.testing.assert_allclose(targets["boxes"][0], dataset[0].boxes * 1.5, rtol=1e-6)

    # 41 x 23 to min 16: floor(41 * 16 / 23) = 28, so the two axes have ratios of their own
    inputs, targets = next(iter(Batches(dataset[2:3], 1, min_size=16, max_size=90)))
    assert inputs["image_sizes"].numpy().tolist() == [[28, 16]]
    expected = cv2.resize(read(dataset[2]).astype(np.float32), (16, 28))
    np.testing.assert_allclose(inputs["images"][0, :28, :16], expected, atol=0.02)
    ratio = np.array([16 / 23, 28 / 41, 16 / 23, 28 / 41])
    np.testing.assert_allclose(targets["boxes"][0, :1], dataset[2].boxes * ratio, rtol=1e-6)


def test_a_limit_alone_resizes_only_what_exceeds_it(dataset):
    smaller = Batches(dataset[:2], 1, max_size=25)
    sizes = [inputs["image_sizes"].numpy()[0].tolist() for inputs, _ in smaller]
    assert sizes == [[15, 25], [25, 25]]
    inputs, _ = next(iter(Batches(dataset[:1], 1, min_size=60)))
    assert inputs["image_sizes"].numpy().tolist() == [[60, 100]]


def test_antialias_is_pillows(dataset, tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (90, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    record = Record(1, str(tmp_path / "noise.png"), 90, 60, [], [], [])
    batches = Batches(
        DetectionDataset([record], ["a"]), 1, min_size=20, max_size=30, antialias=True
    )
    inputs, _ = next(iter(batches))
    pillow = Image.fromarray(pixels).resize((20, 30), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(inputs["images"][0, :30, :20], np.asarray(pillow), atol=1.01)


def test_sized_fills_in_only_what_is_missing(dataset):
    batches = dataset.batches(2, min_size=48)
    filled = batches.sized(800, 1333)
    assert (filled.min_size, filled.max_size) == (48, 1333)
    assert (batches.min_size, batches.max_size) == (48, None)
    assert (filled.dataset, filled.batch_size) == (dataset, 2)


def test_single_pass_in_order(dataset):
    batches = dataset.batches(3)
    assert ids(batches) == [[100, 101, 102], [103, 104, 105], [106]]
    assert ids(batches) == ids(batches)
    assert len(batches) == 3
    assert batches.tf_dataset().cardinality() == 3
    assert batches.tf_dataset(start_step=2).cardinality() == 1
    assert batches.tf_dataset(repeat=True).cardinality() == tf.data.INFINITE_CARDINALITY
    inputs, _ = batches.tf_dataset(repeat=True).element_spec
    assert inputs["images"].shape.as_list() == [3, None, None, 3]  # full batches, known as such
    assert ids(batches, start_step=3) == []


def test_every_epoch_holds_every_image_once(dataset):
    batches = dataset.batches(3, shuffle=True, seed=5)
    steps = endless_ids(batches, 14)
    assert all(len(step) == 3 for step in steps)
    epochs = np.reshape(steps, (6, 7)).tolist()
    assert all(sorted(epoch) == list(range(100, 107)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert [one for step in ids(batches) for one in step] == epochs[0]
    assert endless_ids(batches, 14) == steps
    assert endless_ids(dataset.batches(3, shuffle=True, seed=6), 14) != steps


def test_resume_continues_the_uninterrupted_stream(dataset):
    augment = Compose(RandomFlip(vertical=True), ScaleJitter(), ColorJitter())
    batches = dataset.batches(3, shuffle=True, augment=augment, seed=2)
    whole = listed(batches.tf_dataset(repeat=True).take(6))
    assert_same(listed(batches.tf_dataset(repeat=True, start_step=4).take(2)), whole[4:])
    assert_same(listed(batches.tf_dataset(start_step=1)), listed(batches)[1:])


@pytest.mark.parametrize("of", [1, 2, 4])
def test_parts_are_the_batches_cut(dataset, of):
    batches = dataset.batches(4, shuffle=True, seed=2)
    whole, last = ids(batches)
    steps = endless_ids(batches, 5)
    for mine in (range(of // 2), range(of // 2, of)) if of > 1 else (range(1),):
        part, size = batches.part(mine, of), 4 // of
        assert len(part) == len(batches)

        def cut(batch, mine=mine, size=size):
            return [batch[i * size : (i + 1) * size] for i in mine]

        expected = [piece for step in steps for piece in cut(step)]
        assert endless_ids(part, len(expected)) == expected
        later = [piece for step in steps[2:] for piece in cut(step)]
        assert endless_ids(part, len(later), start_step=2) == later
        left = [piece for piece in cut(last) if piece]
        assert ids(part) == [*cut(whole), *left]
        assert ids(part, start_step=1) == left


def test_a_batch_that_cannot_be_cut_evenly(dataset):
    with pytest.raises(ValueError, match="batch of 3 images cannot be shared out evenly to 2"):
        dataset.batches(3).part(range(1), of=2)


@pytest.mark.parametrize("parallel", [1, 6])
def test_augmentation_does_not_depend_on_parallel_calls(dataset, monkeypatch, parallel):
    augment = Compose(RandomFlip(), ScaleJitter(), ColorJitter())
    batches = dataset.batches(2, shuffle=True, augment=augment)
    tuned = listed(islice(batches.tf_dataset(repeat=True), 5))
    monkeypatch.setattr(tf.data, "AUTOTUNE", parallel)
    assert_same(listed(islice(batches.tf_dataset(repeat=True), 5)), tuned)


def test_augmentation_changes_with_epoch_image_and_seed(dataset):
    def drawn(**options):
        seeds = []

        def record_seed(sample, seed):
            tf.numpy_function(lambda value: seeds.append(tuple(value)), [seed], [])
            return sample

        list(dataset.batches(7, augment=record_seed, **options).tf_dataset(repeat=True).take(2))
        return seeds

    first = set(drawn())
    assert len(first) >= 14  # 7 images in 2 epochs; prefetching may have begun a third
    assert not first & set(drawn(seed=1))


def test_an_image_without_objects_gets_padding_alone(dataset):
    inputs, targets = next(
        iter(Batches(dataset[1:2], 1, augment=Compose(RandomFlip(), ScaleJitter())))
    )
    assert targets["boxes"].shape == (1, 1, 4)
    assert targets["labels"].numpy().tolist() == [[-1]]
    assert inputs["images"].shape[0] == 1


def test_max_objects_is_the_number_of_rows_and_is_not_exceeded(dataset):
    assert next(iter(dataset.batches(2, max_objects=5)))[1]["labels"].shape == (2, 5)
    with pytest.raises(ValueError, match=r"3\.png has 3 objects, more than max_objects=2"):
        dataset.batches(2, max_objects=2)


def test_unreadable_file_is_named_while_reading(dataset, tmp_path):
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"not an image")
    record = Record(1, str(path), 10, 10, [], [], [])
    with pytest.raises(tf.errors.OpError, match=r"broken\.jpg"):
        list(DetectionDataset([record], ["a"]).batches(1))


def test_image_that_is_not_as_its_record_says_is_named(dataset):
    wrong = Record(1, dataset[0].path, 50, 30, [], [], [])
    with pytest.raises(tf.errors.OpError, match=r"0\.png: the image is 50 x 30 .* says 30 x 50"):
        list(DetectionDataset([wrong], ["a"]).batches(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size .* got 0"),
        ({"batch_size": 2.5}, r"batch_size .* got 2\.5"),
        ({"max_objects": 0}, "max_objects .* got 0"),
        ({"min_size": -1}, "min_size .* got -1"),
        ({"min_size": 100, "max_size": 50}, "max_size 50 is less than min_size 100"),
    ],
)
def test_numbers_out_of_range_are_refused(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        Batches(dataset, **{"batch_size": 2} | options)


def test_wrong_arguments_are_refused(dataset):
    with pytest.raises(ValueError, match="no images"):
        DetectionDataset([], ["a"]).batches(1)
    with pytest.raises(TypeError, match="augment must be callable"):
        dataset.batches(1, augment="flips")
    with pytest.raises(ValueError, match=r"start_step 4 is outside 0\.\.3"):
        dataset.batches(3).tf_dataset(start_step=4)
    with pytest.raises(ValueError, match="start_step -1"):
        dataset.batches(3).tf_dataset(repeat=True, start_step=-1)


def test_photographs_are_batched(shared_data):
    from rcnn_keras.data.coco import load_coco

    dataset = load_coco(shared_data / "bccd/val.json", shared_data / "bccd/images")[:4]
    (inputs, targets), record = (
        next(iter(dataset.batches(4, min_size=240, max_size=320))),
        dataset[0],
    )
    assert inputs["images"].shape == (4, 256, 320, 3)
    assert (targets["labels"].numpy() >= 0).sum(axis=1).tolist() == [len(r) for r in dataset]
    np.testing.assert_allclose(
        targets["boxes"][0, : len(record)], record.boxes * (240 / record.height), rtol=1e-5
    )


def mask_of(i, height, width):
    """The i-th object of an image of its own size: a rectangle, too thin to see if i is 2."""
    mask = np.zeros((height, width), bool)
    if i == 2:
        mask[0, 0] = True
    else:
        mask[height // 5 : height // 2, width // 7 * (i + 1) : -2] = True
    return mask


@pytest.fixture(scope="module")
def segmented(dataset):
    def codes(record):
        masks = [mask_of(i, record.height, record.width) for i in range(len(record))]
        return tuple(rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks)

    records = [replace(record, segmentations=codes(record)) for record in dataset]
    return DetectionDataset(records, dataset.classes)


def test_masks_are_packed_and_padded_with_the_images(segmented):
    first = 0
    for inputs, targets in segmented.batches(2, max_objects=4, masks=True):
        size, (height, width) = len(inputs["images"]), inputs["images"].shape[1:3]
        expected = np.zeros((size, 4, height, width), bool)
        for row, record in enumerate(segmented[first : first + size]):
            for i in range(len(record)):
                expected[row, i, : record.height, : record.width] = mask_of(
                    i, record.height, record.width
                )
        assert targets["masks"].dtype == tf.uint8
        np.testing.assert_array_equal(targets["masks"], np.packbits(expected, axis=-1))
        first += size
    assert first == len(segmented)
    _, targets = segmented.batches(2, masks=True).tf_dataset(repeat=True).element_spec
    assert targets["masks"].shape.as_list() == [2, 3, None, None]


def test_masks_are_resized_and_those_that_vanish_dropped(segmented):
    record = segmented[3]  # three objects; of the last one a single pixel
    batches = Batches(segmented[3:4], 1, min_size=24, max_size=40, masks=True)
    inputs, targets = next(iter(batches))
    height, width = inputs["image_sizes"].numpy()[0].tolist()
    assert (height, width) == (20, 40)
    masks = np.unpackbits(targets["masks"][0], axis=-1).astype(bool)
    assert targets["labels"].numpy().tolist() == [[*record.labels[:2], -1]]
    np.testing.assert_allclose(targets["boxes"][0, 2], 0)
    assert not masks[:, height:].any()
    assert not masks[:, :, width:].any()
    assert not masks[2].any()
    for i in range(2):
        gray = Image.fromarray(mask_of(i, 33, 64).astype(np.uint8) * 255)
        expected = np.asarray(gray.resize((width, height), Image.Resampling.BILINEAR)) > 127
        np.testing.assert_array_equal(masks[i, :height, :width], expected)


def test_masks_are_in_a_batch_only_if_asked_for(segmented, dataset):
    _, targets = next(iter(segmented.batches(2)))
    assert set(targets) == {"boxes", "labels", "crowd"}
    assert segmented.batches(2, masks=True).sized(60, 90).masks
    with pytest.raises(ValueError, match=r"0\.png: object 0 has no segmentation"):
        dataset.batches(2, masks=True)


def test_a_crowd_region_without_segmentation_stays(segmented):
    record = segmented[3]  # its second object is a crowd
    kept = replace(record, segmentations=(record.segmentations[0], None, record.segmentations[2]))
    _, targets = next(iter(Batches(DetectionDataset([kept], ["a", "b"]), 1, masks=True)))
    assert targets["crowd"].numpy().tolist() == [[False, True, False]]
    assert not targets["masks"][0, 1].numpy().any()
    assert targets["labels"].numpy().tolist() == [record.labels.tolist()]


def test_masks_are_augmented_with_their_images(segmented):
    augment = Compose(RandomFlip(vertical=True), ScaleJitter(), ColorJitter())
    batches = segmented.batches(3, shuffle=True, augment=augment, masks=True, seed=2)
    whole = listed(batches.tf_dataset(repeat=True).take(4))
    assert_same(listed(batches.tf_dataset(repeat=True, start_step=2).take(2)), whole[2:])
    for inputs, targets in whole:
        masks = np.unpackbits(targets["masks"], axis=-1)
        assert masks.shape[2:] == inputs["images"].shape[1:3]
        assert masks.any(axis=(2, 3)).sum() == (targets["labels"] >= 0).sum()


def test_an_augmentation_that_forgets_the_masks_is_reported(segmented):
    def halve(sample, seed):
        return sample | {"image": sample["image"][::2]}

    with pytest.raises(tf.errors.InvalidArgumentError, match="must change the masks of a sample"):
        list(segmented.batches(1, augment=halve, masks=True))


def test_each_sample_draws_one_of_several_sizes(dataset):
    """Padding holds the batch's largest, and boxes are in the pixels of the size drawn."""
    batches = Batches(dataset, 3, shuffle=True, min_size=(20, 32, 70), max_size=96, seed=4)
    stream = listed(batches.tf_dataset(repeat=True).take(14))
    by_id = {record.image_id: record for record in dataset}
    drawn = set()
    for inputs, targets in stream:
        sizes = inputs["image_sizes"]
        largest = -(-sizes.max(axis=0) // 32) * 32
        assert inputs["images"].shape[1:3] == tuple(largest)
        for i, image_id in enumerate(inputs["image_ids"]):
            record = by_id[image_id]
            own = np.array([record.height, record.width])
            candidates = [
                tuple(np.floor(own * min(size / own.min(), 96 / own.max())).astype(int))
                for size in (20, 32, 70)
            ]
            size = tuple(sizes[i])
            assert size in candidates
            drawn.add((image_id, size))
            count = len(record.labels)
            ratio = np.tile(size[::-1] / own[::-1], 2)
            np.testing.assert_allclose(targets["boxes"][i, :count], record.boxes * ratio, rtol=1e-4)
    assert len(drawn) > 2 * len(dataset)  # 6 epochs
    # Whatever a run did before, the same sample has the same size.
    resumed = listed(batches.tf_dataset(repeat=True, start_step=9).take(5))
    for first, second in zip(stream[9:], resumed, strict=True):
        assert_same(first, second)
    other = Batches(dataset, 3, shuffle=True, min_size=(20, 32, 70), max_size=96, seed=5)
    sizes = [inputs["image_sizes"] for inputs, _ in listed(other.tf_dataset(repeat=True).take(14))]
    assert any(np.any(a != b["image_sizes"]) for a, (b, _) in zip(sizes, stream, strict=True))


def test_one_of_several_sizes_is_that_size(dataset):
    several, one = (Batches(dataset, 2, min_size=size, max_size=96) for size in ([40], 40))
    for first, second in zip(listed(several.tf_dataset()), listed(one.tf_dataset()), strict=True):
        assert_same(first, second)


@pytest.mark.parametrize("sizes", [(), (0, 32), (32, "64"), (32, 200), 3.5])
def test_several_sizes_are_checked(dataset, sizes):
    with pytest.raises(ValueError, match=r"min_size.* got|max_size 96 is less than"):
        Batches(dataset, 2, min_size=sizes, max_size=96)


def test_two_passes_have_different_orders_and_a_new_object_repeats_them():
    drawn = draw_shapes(8, size=(32, 32), seed=1)

    def passes():
        batches = drawn.batches(4, shuffle=True)
        return [[int(i) for x, _ in batches for i in x["image_ids"]] for _ in range(2)]

    first, second = passes()
    assert first != second
    assert sorted(first) == sorted(second)
    assert passes() == [first, second]
