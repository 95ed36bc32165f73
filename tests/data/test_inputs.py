"""Inputs read without a graph against those of the tf.data pipeline."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from rcnn_keras.data import Batches, ImageError, draw_shapes
from rcnn_keras.data.inputs import input_batches, unlabelled


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Seven images of three sizes, some in files; each with regions to look at."""
    folder = tmp_path_factory.mktemp("scenes")
    sets = [
        draw_shapes(3, size=(50, 70), out=folder),
        draw_shapes(2, size=(96, 64), seed=1),
        draw_shapes(2, size=(33, 90), seed=2),
    ]
    dataset = sets[0] + sets[1] + sets[2]
    draw = np.random.default_rng(0)
    return dataset.with_proposals(
        {r.image_id: draw.uniform(0, 30, (i % 4, 4)) for i, r in enumerate(dataset)}
    )


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"min_size": 48, "max_size": 80},
        {"min_size": 40, "antialias": True},
        {"min_size": 64, "max_size": 64, "proposals": True},
        {"proposals": True},
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_same_as_the_pipeline(scenes, sizes, batch_size):
    batches = Batches(scenes, batch_size, **sizes)
    ours = list(input_batches(batches))
    theirs = [inputs for inputs, _ in batches.tf_dataset()]
    assert len(ours) == len(theirs) == len(batches)
    for inputs, expected in zip(ours, theirs, strict=True):
        assert set(inputs) == set(expected)
        for name, value in expected.items():
            assert inputs[name].dtype == value.dtype.as_numpy_dtype
            np.testing.assert_array_equal(inputs[name], value)


def test_of_several_sizes_the_last_is_taken(scenes):
    several, last = (Batches(scenes, 2, min_size=s, proposals=True) for s in ([40, 64], 64))
    for inputs, expected in zip(input_batches(several), input_batches(last), strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(inputs[name], value)


def test_reading_ahead_ends_with_the_reader(scenes):
    before = threading.active_count()
    stream = input_batches(Batches(scenes, 1))
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_an_image_of_another_size_is_reported(scenes):
    records = [*scenes[:2], replace(scenes[2], height=51)]
    stream = input_batches(Batches(type(scenes)(records, scenes.classes), 2))
    next(stream)
    with pytest.raises(ImageError, match="is 70 x 50 pixels, its record says 70 x 51"):
        next(stream)


def test_an_array_of_paths_is_a_list_of_images(tmp_path):
    """As a column of a table is."""
    draw_shapes(2, size=(50, 70), out=tmp_path)
    files = sorted(str(path) for path in tmp_path.glob("*.png"))
    for array in (np.array(files), np.array(files, object)):
        assert [record.path for record in unlabelled(array, ["a"])] == files
    with pytest.raises(ImageError, match="image 0 of type float64"):
        unlabelled(np.zeros(3), ["a"])


def test_records_are_images_without_their_objects(scenes):
    record = next(record for record in scenes if len(record))
    for given in (record, [record], (record,)):
        dataset = unlabelled(given, ["another class"])
        (image,) = dataset
        assert (image.image_id, image.path, len(image)) == (record.image_id, record.path, 0)
        assert dataset.classes == ("another class",)
    assert len(record) > 0
