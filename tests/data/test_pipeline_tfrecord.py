"""Batches of TFRecord files: those of the image files to the bit, and without Python."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.data.augmentation import Compose, RandomFlip, ScaleJitter
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.pipeline import AT_ONCE
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.data.tfrecord import save_tfrecord


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Eleven scenes; an object of one has no mask and is a crowd, another scene has none at all."""
    drawn = list(draw_shapes(11, size=(60, 84), seed=7, out=tmp_path_factory.mktemp("images")))
    place = next(i for i, record in enumerate(drawn) if len(record) >= 2)
    record = drawn[place]
    crowd = np.arange(len(record)) == 1
    codes = [None if c else code for c, code in zip(crowd, record.segmentations, strict=True)]
    drawn[place] = replace(record, crowd=crowd, segmentations=tuple(codes))
    bare = drawn[-1].select(np.zeros(0, int))
    drawn[-1] = replace(bare, segmentations=None)
    return DetectionDataset(drawn, ["circle", "triangle", "square", "star"])


@pytest.fixture(scope="module")
def records(files, tmp_path_factory, in_process):
    return save_tfrecord(
        files, tmp_path_factory.mktemp("p") / "r", shard_size=4, engine=in_process()
    )


def listed(stream):
    return [tf.nest.map_structure(np.asarray, element) for element in stream]


def assert_same(first, second):
    assert len(first) == len(second) > 0
    tf.nest.map_structure(np.testing.assert_array_equal, first, second)


def test_batches_are_those_of_the_files_to_the_bit(files, records):
    options = {"shuffle": True, "augment": Compose(RandomFlip(), ScaleJitter()), "masks": True}
    options |= {"min_size": (40, 70), "max_size": 100, "seed": 5}
    streams = [
        listed(dataset.batches(3, **options).tf_dataset(repeat=True).take(6))
        for dataset in (files, records)
    ]
    assert_same(*streams)
    assert any(targets["masks"].any() for _, targets in streams[0])


def test_chosen_classes_choose_their_masks(files, records):
    streams = [
        listed(dataset.with_classes(["star", "circle"])[2:].batches(2, masks=True))
        for dataset in (files, records)
    ]
    assert_same(*streams)


def test_both_kinds_together(files, records):
    both = files[:3] + records[3:]
    assert_same(listed(both.batches(2, masks=True)), listed(files.batches(2, masks=True)))


def test_no_python_is_called(files, records):
    def operations(dataset):
        reader = tf.function(dataset.batches(1, masks=True)._sample_reader(), autograph=False)
        graph = reader.get_concrete_function(tf.TensorSpec((), tf.int64)).graph.as_graph_def()
        functions = [node.op for f in graph.library.function for node in f.node_def]
        return {node.op for node in graph.node} | set(functions)

    assert "PyFunc" in operations(files)
    assert not {"PyFunc", "EagerPyFunc", "PyFuncStateless"} & operations(records)


@pytest.fixture(scope="module")
def many(tmp_path_factory, in_process):
    """Nineteen shards, one or two images each."""
    folder = tmp_path_factory.mktemp("many")
    drawn = draw_shapes(29, size=(32, 32), out=folder / "images")
    return save_tfrecord(drawn, folder / "records", shard_size=2, engine=in_process())[1:]


def ids(batches, count, start_step=0):
    stream = batches.tf_dataset(repeat=True, start_step=start_step).take(count)
    return [int(i) for inputs, _ in stream for i in inputs["image_ids"]]


def test_shuffled_shards_show_every_image_once_an_epoch(many):
    batches = many.batches(4, shuffle="shards", seed=3)
    order = ids(batches, 21)  # three epochs of 28 images
    epochs = [order[:28], order[28:56], order[56:]]
    everything = sorted(record.image_id for record in many)
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert ids(many.batches(4, shuffle="shards", seed=4), 7) != epochs[0]
    assert ids(batches, 9, start_step=5) == order[20:56]


def test_shuffled_shards_read_a_few_files_at_a_time(many):
    file_of = {record.image_id: record.tfrecord.file for record in many}
    sizes = {file: list(file_of.values()).count(file) for file in file_of.values()}
    order = ids(many.batches(1, shuffle="shards"), 28)
    files = [file_of[i] for i in order]
    start = 0
    while start < len(order):
        block = list(dict.fromkeys(files[start:]))[:AT_ONCE]
        stop = start + sum(sizes[file] for file in block)
        assert set(files[start:stop]) == set(block)
        start = stop
    adjacent = sum(a == b for a, b in pairwise(files))
    assert adjacent < len(order) / 2  # images of a shard do not come in a row


def test_shards_to_shuffle_are_needed(files, records):
    with pytest.raises(ValueError, match=r"'shards' needs TFRecord files, and .*png is in none"):
        files.batches(2, shuffle="shards")
    with pytest.raises(ValueError, match="shuffle must be True, False or 'shards', got 'files'"):
        records.batches(2, shuffle="files")
