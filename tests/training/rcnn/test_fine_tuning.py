import numpy as np
import pytest

from rcnn_keras.data import DetectionDataset, Record
from rcnn_keras.ops import iou
from rcnn_keras.training.checkpoint import Checkpoint
from rcnn_keras.training.checkpoint_state import CheckpointError
from rcnn_keras.training.rcnn.features import FeatureExtractor
from rcnn_keras.training.rcnn.fine_tuning import WindowSampler, crop_batches, fine_tune


def test_a_batch_has_its_numbers_of_objects_and_background(scenes):
    dataset = scenes[0]
    images, boxes, classes = WindowSampler(dataset, 32, 96, seed=1).draw(5)
    assert boxes.shape == (128, 4)
    assert len(set(images)) > 6  # from all over the dataset
    for number, box, c in zip(images, boxes, classes, strict=True):
        record = dataset[number]
        overlaps = np.asarray(iou(box[None], record.boxes))[0] if len(record) else np.zeros(1)
        if c:
            assert overlaps.max() >= 0.5
            assert record.labels[overlaps.argmax()] == c - 1
        else:
            assert overlaps.max() < 0.5
    np.testing.assert_array_equal(classes > 0, np.arange(128) < 32)


def test_a_draw_depends_on_seed_and_step_alone(scenes):
    draws = [
        WindowSampler(scenes[0], seed=seed).draw(step)[1] for seed, step in [(1, 5), (1, 6), (2, 5)]
    ]
    sampler = WindowSampler(scenes[0], seed=1)
    sampler.draw(0)
    np.testing.assert_array_equal(sampler.draw(5)[1], draws[0])
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_crops_equal_those_of_the_detector(scenes, make_rcnn):
    dataset = scenes[0]
    model = make_rcnn(dataset.classes)
    sampler = WindowSampler(dataset, 2, 2)
    extract = FeatureExtractor(model)
    batches = iter(crop_batches(model, dataset, sampler, start=4))
    for step in (4, 5):
        crops, labels = next(batches)
        images, boxes, classes = sampler.draw(step)
        np.testing.assert_array_equal(labels, classes)
        found = model.network(crops)["fc7"]
        for features, number, box in zip(found, images, boxes, strict=True):
            expected = extract(dataset[int(number)], box[None])["fc7"][0, 0]
            np.testing.assert_allclose(features, expected, atol=1e-4)


class Stopped(Exception):
    pass


@pytest.mark.slow
def test_interrupted_fine_tuning_resumes_at_its_step(scenes, make_rcnn, tmp_path, monkeypatch):
    """Windows, dropout and momentum are all restored by a checkpoint."""
    dataset = scenes[0][:4]
    lines = []
    how = {"learning_rate": 0.01, "sampler": WindowSampler(dataset, 2, 2), "key": "k", "steps": 4}
    how |= {"log": lines.append}
    whole, first, second = (make_rcnn(dataset.classes) for _ in range(3))
    before = whole.network.get_weights()
    fine_tune(whole, dataset, checkpoint=Checkpoint(tmp_path / "whole"), **how)
    assert any(np.any(a != b) for a, b in zip(before, whole.network.get_weights(), strict=True))
    save = Checkpoint.save

    def stop(self, epoch, batch, **how):
        save(self, epoch, batch, **how)
        if batch == 2:
            raise Stopped

    monkeypatch.setattr(Checkpoint, "save", stop)
    checkpoint = Checkpoint(tmp_path / "parts", every_steps=1)
    with pytest.raises(Stopped):
        fine_tune(first, dataset, checkpoint=checkpoint, **how)
    fine_tune(second, dataset, checkpoint=checkpoint, **how)
    assert [line.split(":")[0] for line in lines] == ["step 4 of 4"] * 2
    assert lines[0] == lines[1]  # the mean over all four steps
    for a, b in zip(whole.network.get_weights(), second.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    dropout = whole.network.get_layer("fc7_dropout")
    assert (dropout.rate, dropout.variables) == (0.5, [])
    with pytest.raises(CheckpointError, match=r"data\.key was 'k', is 'other'"):
        fine_tune(second, dataset, checkpoint=checkpoint, **(how | {"key": "other"}))


def test_data_without_windows_of_objects_is_refused():
    pixels = np.zeros((50, 50, 3), "u1")
    empty = Record(
        1, "a", 50, 50, np.zeros((0, 4)), [], [], proposals=[[0, 0, 9, 9]], pixels=pixels
    )
    with pytest.raises(ValueError, match="no proposal of the dataset is a window of objects"):
        WindowSampler(DetectionDataset([empty], ["thing"]))
