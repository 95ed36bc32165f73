import numpy as np
import pytest

from rcnn_keras.data import DetectionDataset, Record
from rcnn_keras.ops import iou
from rcnn_keras.training.rcnn import fine_tuning
from rcnn_keras.training.rcnn.features import FeatureExtractor
from rcnn_keras.training.rcnn.fine_tuning import WindowSampler, crop_batches, fine_tune


def test_a_batch_has_its_positives_and_its_background(scenes):
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


def test_crops_are_what_the_detector_sees(scenes, make_rcnn):
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


def test_stopped_it_goes_on_at_its_step(scenes, make_rcnn, tmp_path):
    dataset = scenes[0]
    sampler = WindowSampler(dataset, 2, 2)
    backup, lines = tmp_path / "backup.weights.h5", []
    how = {"learning_rate": 0.01, "sampler": sampler, "backup": backup, "log": lines.append}
    first = make_rcnn(dataset.classes)
    before = first.network.get_weights()
    fine_tune(first, dataset, steps=2, **how)
    assert any(np.any(a != b) for a, b in zip(before, first.network.get_weights(), strict=True))
    again = make_rcnn(dataset.classes)
    fine_tune(again, dataset, steps=2, **how)  # nothing left to do
    for a, b in zip(first.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    fine_tune(again, dataset, steps=3, **how)
    assert [line.split(":")[0] for line in lines] == ["step 2 of 2", "step 3 of 3"]


def test_stopped_or_not_the_weights_are_the_same(scenes, make_rcnn, tmp_path, monkeypatch):
    """Windows, dropout, momentum: nothing is drawn that the backup does not know of."""
    monkeypatch.setattr(fine_tuning, "STEPS_BETWEEN_BACKUPS", 2)
    dataset = scenes[0][:4]
    sampler = WindowSampler(dataset, 2, 2)
    how = {"learning_rate": 0.01, "sampler": sampler, "log": lambda line: None}
    whole, first, second = (make_rcnn(dataset.classes) for _ in range(3))
    fine_tune(whole, dataset, steps=4, backup=tmp_path / "whole.weights.h5", **how)
    fine_tune(first, dataset, steps=2, backup=tmp_path / "parts.weights.h5", **how)
    fine_tune(second, dataset, steps=4, backup=tmp_path / "parts.weights.h5", **how)
    for a, b in zip(whole.network.get_weights(), second.network.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    dropout = whole.network.get_layer("fc7_dropout")
    assert (dropout.rate, dropout.variables) == (0.5, [])


def test_data_without_one_kind_of_windows_is_refused():
    pixels = np.zeros((50, 50, 3), "u1")
    empty = Record(
        1, "a", 50, 50, np.zeros((0, 4)), [], [], proposals=[[0, 0, 9, 9]], pixels=pixels
    )
    with pytest.raises(ValueError, match="no proposal of the dataset is a window of objects"):
        WindowSampler(DetectionDataset([empty], ["thing"]))
