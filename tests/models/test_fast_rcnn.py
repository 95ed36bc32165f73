"""Fast R-CNN: proposals through the batch, RoIPool, and a head of truncated layers."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.layers import RoIAlign, RoIPool
from rcnn_keras.models.batch import complete_targets


def fast_rcnn(classes, backbone="vgg16", **arguments):
    keras.utils.set_random_seed(0)
    small = {
        "min_size": 96,
        "max_size": 96,
        "box_units": 32,
        "box_batch_size_per_image": 16,
        "recompute_stages": 0,
    }
    return rk.models.FastRCNN(backbone, classes, **(small | arguments))


def jittered(dataset, seed=0):
    """Ground truth shifted by a few pixels, and boxes anywhere."""
    rng = np.random.default_rng(seed)
    proposals = {}
    for record in dataset:
        near = np.repeat(record.boxes, 4, axis=0) + rng.normal(0, 3, (4 * len(record), 4))
        corner = rng.uniform(0, 70, (30, 2))
        far = np.concatenate([corner, corner + rng.uniform(8, 60, (30, 2))], axis=1)
        boxes = np.concatenate([near, far]).clip(0, [record.width, record.height] * 2)
        proposals[record.image_id] = boxes.astype("f4")
    return proposals


@pytest.fixture(scope="module")
def proposed(scenes):
    return scenes.with_proposals(jittered(scenes))


@pytest.fixture(scope="module")
def model(scenes):
    return fast_rcnn(scenes.classes, box_score_thresh=0.0)


def test_the_graph_reads_proposals(model, proposed):
    assert sorted(model.input_names) == ["image_sizes", "images", "num_proposals", "proposals"]
    inputs, _ = next(iter(model._with_truth(proposed.batches(2))))
    found = model.predict(inputs, verbose=0)
    assert found["boxes"].shape == (2, 100, 4)
    assert (found["num_detections"] > 5).all()
    # Proposals that are padding give nothing: fewer real ones, the others' detections gone.
    without = model.predict(inputs | {"num_proposals": np.array([0, 3], "i4")}, verbose=0)
    np.testing.assert_array_equal(without["num_detections"] > 0, [False, True])
    assert (without["labels"][0] == -1).all()


def test_all_proposals_are_real_by_default(model, proposed):
    inputs, _ = next(iter(model._with_truth(proposed.batches(1))))
    inputs |= {"proposals": inputs["proposals"][:, : int(inputs["num_proposals"][0])]}
    counted = model({k: v for k, v in inputs.items() if k != "num_proposals"})
    np.testing.assert_array_equal(counted["boxes"], model(inputs)["boxes"])


def test_the_second_stage_is_the_papers(model, proposed):
    """Detections without NMS and threshold, against numpy on the pooled features."""
    inputs, _ = next(iter(model._with_truth(proposed[:1].batches(1))))
    first = model.extract_features(inputs, training=False)
    boxes = inputs["proposals"].numpy()[0]
    pooled = tf.reshape(model.box_pooling(first["features"], boxes[None]), (len(boxes), -1)).numpy()
    for name in ("fc6", "fc7"):
        kernel, bias = model.box_head.trunk.get_layer(name).get_weights()
        pooled = np.maximum(pooled @ kernel + bias, 0)
    head = model.box_head
    logits = pooled @ head.class_logits.kernel.numpy() + head.class_logits.bias.numpy()
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    deltas = pooled @ head.box_deltas.kernel.numpy() + head.box_deltas.bias.numpy()
    found = model.predict(inputs, verbose=0)
    best = np.unravel_index(scores[:, 1:].argmax(), scores[:, 1:].shape)
    assert found["scores"][0, 0] == pytest.approx(scores[:, 1:].max(), rel=1e-4)
    assert found["labels"][0, 0] == best[1]
    roi, (dx, dy, dw, dh) = boxes[best[0]], deltas[best[0]].reshape(-1, 4)[best[1]] / [10, 10, 5, 5]
    size, middle = roi[2:] - roi[:2], (roi[:2] + roi[2:]) / 2
    middle, half = middle + [dx, dy] * size, size * np.exp([dw, dh]) / 2
    box = np.concatenate([middle - half, middle + half]).clip(0, 96)
    np.testing.assert_allclose(found["boxes"][0, 0], box, atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "arguments", "pooling"),
    [
        ("vgg16", {"roi_pooling": "align"}, RoIAlign),
        ("vgg16", {}, RoIPool),
        ("resnet18", {}, RoIPool),
        ("resnet18_fpn", {"roi_pooling": "align", "fpn_channels": 16}, RoIAlign),
    ],
)
def test_every_backbone_and_pooling_is_loaded_again(
    backbone, arguments, pooling, proposed, tmp_path
):
    model = fast_rcnn(proposed.classes, backbone, box_score_thresh=0.0, **arguments)
    assert type(model.box_pooling) is pooling
    found = model.detect(proposed[:1])[0]
    assert len(found) > 5
    model.save(tmp_path / "fast.keras")
    again = keras.models.load_model(tmp_path / "fast.keras")
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(again.detect(proposed[:1])[0].boxes, found.boxes)


@pytest.mark.slow
def test_it_overfits_a_few_images(scenes):
    four = scenes[2:].with_proposals(jittered(scenes[2:]))
    model = fast_rcnn(
        scenes.classes, "resnet18_fpn", roi_pooling="align", fpn_channels=32, backbone_width=0.25
    )
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9))
    history = model.fit(
        four.batches(4, shuffle=True, augment=rk.data.RandomFlip()),
        steps_per_epoch=60,
        epochs=2,
        validation_data=four.batches(4),
        callbacks=[rk.callbacks.CocoEvaluation(four, every=2)],
        verbose=0,
    ).history
    assert set(history) >= {"class_loss", "box_loss", "loss", "val_class_loss", "val_AP50"}
    assert history["loss"][1] < history["loss"][0] / 2
    assert history["val_AP50"][-1] >= 0.9


def test_background_that_overlaps_nothing_is_left_out(scenes, proposed):
    """The paper's [0.1, 0.5): with the floor at 0 the far boxes train too."""
    record = replace(proposed[2], proposals=np.array([[0, 0, 3, 3], [90, 90, 96, 96]], "f4"))
    far = rk.data.DetectionDataset([record], scenes.classes)
    counts = {}
    for floor in (0.1, 0.0):
        model = fast_rcnn(scenes.classes, box_bg_iou_low_thresh=floor)
        inputs, targets = next(iter(model._with_truth(far.batches(1))))
        first = {k: inputs[k] for k in ("proposals", "num_proposals", "image_ids")}
        targets = targets | {"crowd": targets["crowd"]}
        _, classes, _, _ = model.roi_sampler(
            first["proposals"], first["num_proposals"], targets, first["image_ids"], np.array(0)
        )
        counts[floor] = int(tf.reduce_sum(tf.cast(classes == 0, "int32")))
    assert counts == {0.1: 0, 0.0: 2}


def test_proposals_come_as_function_list_or_dict(model, proposed, scenes):
    boxes = {record.image_id: record.proposals for record in proposed}
    expected = model.detect(proposed[:2])
    by_id = model.detect(scenes[:2], proposals=boxes)
    listed = model.detect([r.path for r in scenes[:2]], proposals=list(boxes.values())[:2])
    one = model.detect(scenes[0].path, proposals=lambda image: proposed[0].proposals)
    for found in (by_id, listed, [*one, by_id[1]]):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.boxes, b.boxes)


def test_nothing_is_found_where_nothing_was_proposed(model, scenes):
    found = model.detect([r.path for r in scenes[:2]], proposals=[np.zeros((0, 4), "f4")] * 2)
    assert [len(detections) for detections in found] == [0, 0]


def test_a_folded_detector_detects_the_same(proposed):
    """VGG-16 has no norm to fold, a ResNet has; Winograd's convolutions are those of an RPN."""
    model = fast_rcnn(proposed.classes, "resnet18", box_score_thresh=0.0)
    folded = rk.models.fold_batchnorm(model)
    assert folded.get_config()["norm"] is None
    ours, theirs = folded.detect(proposed[:1])[0], model.detect(proposed[:1])[0]
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=2e-2)
    with pytest.raises(ValueError, match="for detectors with an RPN, not FastRCNN"):
        rk.models.fold_batchnorm(model, winograd=True)


def test_missing_proposals_are_refused(model, scenes, detector):
    with pytest.raises(ValueError, match=r"shapes_000000\.png has no proposals"):
        model.detect(scenes)
    with pytest.raises(ValueError, match="FastRCNN: the inputs have no 'proposals'"):
        model(np.zeros((1, 96, 96, 3), "f4"))
    with pytest.raises(ValueError, match="proposals of 1 images for 2 images"):
        model.detect([scenes[0].path, scenes[1].path], proposals=[np.zeros((0, 4))])
    with pytest.raises(ValueError, match="FasterRCNN finds its own proposals"):
        detector.detect(scenes[0].path, proposals=[np.zeros((0, 4))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"roi_pooling": "max"},
            "roi_pooling must be 'pool' or 'align', or a Keras layer; received 'max'",
        ),
        ({"backbone": "resnet18_fpn"}, "roi_pooling must be 'align' for resnet18_fpn"),
        ({"box_bg_iou_low_thresh": 0.6}, "box_bg_iou_low_thresh must be at most"),
        ({"box_ranks": (3,)}, "box_ranks must be None or two whole numbers"),
        ({"backbone": "resnet18", "box_ranks": (3, 3)}, "box_ranks must be None for resnet18"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        fast_rcnn(["a"], **arguments)


def test_truncated_layers_of_full_rank_change_nothing(model, proposed, tmp_path):
    thin = rk.models.truncate_svd(model, (32, 32))
    names = [layer.name for layer in thin.box_head.trunk.layers]
    assert {"fc6_v", "fc6", "fc7_v", "fc7"} <= set(names)
    ours, theirs = thin.detect(proposed[:1])[0], model.detect(proposed[:1])[0]
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=1e-2)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-5)
    thin.save(tmp_path / "thin.keras")
    again = keras.models.load_model(tmp_path / "thin.keras")
    np.testing.assert_array_equal(again.detect(proposed[:1])[0].boxes, ours.boxes)


def test_truncation_keeps_the_greatest_singular_values(model):
    thin = rk.models.truncate_svd(model, (5, 3))
    for name, rank in (("fc6", 5), ("fc7", 3)):
        whole, bias = model.box_head.trunk.get_layer(name).get_weights()
        first = thin.box_head.trunk.get_layer(f"{name}_v").get_weights()[0]
        second, same_bias = thin.box_head.trunk.get_layer(name).get_weights()
        lost = np.linalg.svd(whole, compute_uv=False)[rank:]  # Eckart and Young
        error = np.linalg.norm(whole - first @ second)
        assert error == pytest.approx(np.sqrt(np.sum(lost**2)), rel=1e-3)
        np.testing.assert_array_equal(bias, same_bias)


def test_truncation_of_an_unfit_head_or_rank_is_refused(model, proposed):
    with pytest.raises(ValueError, match=r"the rank of fc7 must be in 1\.\.32; got 33"):
        rk.models.truncate_svd(model, (5, 33))
    with pytest.raises(ValueError, match="ranks must be two numbers"):
        rk.models.truncate_svd(model, (5,))
    thin = rk.models.truncate_svd(model, (5, 5))
    with pytest.raises(ValueError, match="whole layers fc6 and fc7"):
        rk.models.truncate_svd(thin, (5, 5))


def test_dropout_of_an_image_does_not_depend_on_its_batch(proposed):
    """Losses of two images are those of each alone, sampling and dropout included."""
    model = fast_rcnn(proposed.classes, "zf", frozen_stages=0)
    inputs, targets = next(iter(model._with_truth(proposed.batches(2))))
    targets = complete_targets(targets, 96, 96)

    def losses(rows, step=3):
        first = model.extract_features({k: v[rows] for k, v in inputs.items()}, training=True)
        found = model.second_stage_losses(
            first, {k: v[rows] for k, v in targets.items()}, np.array(step), training=True
        )
        return np.array([float(total) for total, _ in found.values()])

    both = losses(slice(0, 2))
    np.testing.assert_allclose(losses(slice(0, 1)) + losses(slice(1, 2)), both, rtol=1e-4)
    np.testing.assert_array_equal(losses(slice(0, 2)), both)
    assert np.abs(losses(slice(0, 2), step=4) - both).max() > 0.01
    assert not [w.path for w in model.weights if "seed" in w.path]
