"""Mask R-CNN: overfitting, the two forms of masks, C4, and what is refused."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk


@pytest.fixture(scope="module")
def overfitted(scenes, make_detector):
    """A detector that was overfitted to three scenes."""
    three = scenes[:3]
    model = make_detector(scenes.classes, architecture=rk.models.MaskRCNN)
    rate = keras.optimizers.schedules.CosineDecay(0.001, 180, warmup_target=0.02, warmup_steps=20)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9))
    history = model.fit(three.batches(3, shuffle=True), steps_per_epoch=50, epochs=4, verbose=0)
    return model, history.history


def mask_ious(found, record):
    """For each object the IoU of its mask with the best detection of its class."""
    truth = rk.data.masks.record_masks(record, record.height, record.width)
    truth = np.unpackbits(truth, axis=2)[:, :, : record.width].astype(bool)
    masks = found.bool_masks()
    ious = []
    for label, mask in zip(record.labels, truth, strict=True):
        same = masks[found.labels == label]
        overlap = (same & mask).sum((1, 2)) / (same | mask).sum((1, 2))
        ious.append(overlap.max(initial=0))
    return ious


@pytest.mark.slow
def test_masks_of_three_scenes_are_overfitted(overfitted, scenes):
    model, history = overfitted
    assert history["mask_loss"][-1] < history["mask_loss"][0] / 2
    ious = [iou for r in scenes[:3] for iou in mask_ious(model.detect(r.path)[0], r)]
    assert np.mean(ious) > 0.75


@pytest.mark.slow
def test_the_total_is_the_sum_of_five_losses(overfitted):
    _, history = overfitted
    assert set(history) == {*rk.models.MaskRCNN.loss_names, "loss"}
    total = sum(history[name][-1] for name in rk.models.MaskRCNN.loss_names)
    assert total == pytest.approx(history["loss"][-1], rel=1e-4)


@pytest.mark.slow
def test_a_saved_model_gives_the_same_masks(overfitted, scenes, tmp_path):
    model, _ = overfitted
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for ours, theirs in zip(model.detect(scenes[:2]), loaded.detect(scenes[:2]), strict=True):
        assert len(ours) > 0
        np.testing.assert_array_equal(ours.masks, theirs.masks)


@pytest.mark.slow
def test_packed_and_plain_masks_give_the_same_losses(scenes, make_detector):
    """The same batch in both forms of `targets["masks"]`."""
    model = make_detector(scenes.classes, architecture=rk.models.MaskRCNN)
    model.compile(keras.optimizers.SGD(0.0))
    batches = scenes.batches(2, min_size=96, max_size=96, masks=True)
    inputs, targets = next(iter(batches))
    plain = np.unpackbits(targets["masks"].numpy(), axis=-1).astype(bool)
    assert plain.any()
    losses = [
        model.evaluate(
            tf.data.Dataset.from_tensors((inputs, targets | {"masks": masks})),
            verbose=0,
            return_dict=True,
        )
        for masks in (targets["masks"], plain)
    ]
    assert losses[0] == losses[1]
    assert losses[0]["mask_loss"] == pytest.approx(np.log(2), abs=0.05)  # masks begin at one half


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda masks: masks[:, :, :, :9], id="another width"),
        pytest.param(lambda masks: masks[:, :, :48], id="another height"),
        pytest.param(lambda masks: masks.astype("float32"), id="bytes as numbers"),
    ],
)
def test_masks_of_another_size_are_refused(scenes, make_detector, wrong):
    model = make_detector(scenes.classes, architecture=rk.models.MaskRCNN)
    inputs, targets = next(iter(scenes.batches(2, min_size=96, max_size=96, masks=True)))
    targets = targets | {"masks": wrong(targets["masks"].numpy())}
    first = model.extract_features(rk.models.batch.complete_inputs(inputs), training=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="masks of height and width"):
        model.compute_loss(inputs, targets, first, training=False)


def test_a_batch_without_any_object(scenes, make_detector):
    model = make_detector(scenes.classes, architecture=rk.models.MaskRCNN)
    inputs = rk.models.batch.complete_inputs(np.zeros((2, 96, 96, 3), "float32"))
    targets = {
        "boxes": np.zeros((2, 0, 4), "float32"),
        "labels": np.zeros((2, 0), "int32"),
        "masks": np.zeros((2, 0, 96, 96), bool),
    }
    first = model.extract_features(inputs, training=False)
    losses = model.losses_of(first, rk.models.batch.complete_targets(targets, 96, 96), False)
    assert losses["mask_loss"][0] == 0
    assert all(np.isfinite(total) for total, _ in losses.values())


def test_targets_without_masks_are_refused(scenes, make_detector):
    model = make_detector(scenes.classes, architecture=rk.models.MaskRCNN)
    model.compile(keras.optimizers.SGD(0.001))
    data = scenes.batches(2, min_size=96, max_size=96).tf_dataset()
    with pytest.raises(ValueError, match="no 'masks'"):
        model.fit(data, verbose=0)


def test_data_without_segmentations_is_refused(scenes, make_detector):
    """An object without a mask is no object with an empty one."""
    records = [replace(record, segmentations=None) for record in scenes]
    bare = rk.data.DetectionDataset(records, scenes.classes)
    model = make_detector(scenes.classes, architecture=rk.models.MaskRCNN)
    model.compile(keras.optimizers.SGD(0.001))
    for work in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=r"shapes_\d+\.png: object 0 has no segmentation"):
            work(bare.batches(2), verbose=0)
    assert model.optimizer.iterations == 0


@pytest.mark.slow
def test_a_c4_detector_shares_its_fifth_stage(scenes, make_detector):
    model = make_detector(
        scenes.classes,
        architecture=rk.models.MaskRCNN,
        backbone="resnet18",
        anchor_sizes=((16, 32, 64),),
        box_score_thresh=0.0,
    )
    shared = model.box_head.trunk.get_layer("layer4_0_conv1")
    assert model.mask_head.trunk.get_layer("layer4_0_conv1") is shared
    model.compile(keras.optimizers.SGD(0.001))
    losses = model.fit(scenes[:2].batches(2), verbose=0).history
    assert all(np.isfinite(losses[name]).all() for name in losses)
    assert model.detect(scenes[0].path)[0].masks.shape[1:] == (14, 14)


@pytest.mark.slow
def test_images_without_objects_train_and_detect_nothing(scenes, make_detector):
    model = make_detector(scenes.classes, architecture=rk.models.MaskRCNN, box_score_thresh=1.0)
    model.compile(keras.optimizers.SGD(0.001))
    images = np.full((2, 64, 96, 3), 90.0, np.float32)
    targets = {
        "boxes": np.zeros((2, 1, 4), np.float32),
        "labels": np.full((2, 1), -1, np.int32),
        "masks": np.zeros((2, 1, 64, 96), bool),
    }
    losses = model.fit({"images": images}, targets, batch_size=2, verbose=0).history
    assert losses["mask_loss"] == [0.0]
    found = model.detect(images[0])[0]
    assert (len(found), found.masks.shape) == (0, (0, 28, 28))
