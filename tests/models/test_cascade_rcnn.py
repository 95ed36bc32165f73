"""Cascade R-CNN: its stages against slow loops and Detectron2's numbers, training, and copies."""

import inspect
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.convert.saved_detectors import load_half_precision, save_half_precision
from rcnn_keras.convert.weights import transfer
from rcnn_keras.layers import BoxRefinement, MeanLogits, RoIMatcher, RoISampler
from rcnn_keras.models import CascadeRCNN, FasterRCNN, MaskRCNN
from rcnn_keras.models.arguments import CASCADE_RCNN, argument_errors
from rcnn_keras.models.batch import complete_inputs, complete_targets

WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
THRESHOLDS = (0.5, 0.6, 0.7)


@pytest.fixture(scope="module")
def detectron2():
    """Some of what Detectron2 computes with a Cascade R-CNN of seeded weights."""
    with np.load(Path(__file__).with_name("cascade_detectron2.npz")) as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def model(scenes, make_detector):
    """A detector whose stages move boxes and tell classes apart, though it was not trained."""
    made = make_detector(scenes.classes, architecture=CascadeRCNN, masks=True, box_score_thresh=0.0)
    rng = np.random.default_rng(0)
    for head in made.box_heads:
        head.class_logits.kernel.assign(rng.normal(0, 0.5, head.class_logits.kernel.shape))
        head.box_deltas.kernel.assign(rng.normal(0, 1, head.box_deltas.kernel.shape))
    made.compile(keras.optimizers.SGD(0.001), run_eagerly=True)  # there is nothing to trace
    return made


@pytest.fixture(scope="module")
def batch(scenes, model):
    """Two scenes: inputs, targets, and what the model extracts while training."""
    inputs, targets = next(iter(model._with_truth(scenes.batches(2)).tf_dataset()))
    inputs = complete_inputs(dict(inputs))
    targets = complete_targets(targets, *inputs["images"].shape[1:3])
    return inputs, targets, model.extract_features(inputs, training=True)


@pytest.fixture(scope="module")
def stages(model, batch):
    """What `sampled_stages` returns for the batch."""
    _, targets, extracted = batch
    step = tf.zeros((), "int64")
    sampled = model.roi_sampler(
        *(extracted[k] for k in ("proposals", "num_proposals")),
        targets,
        extracted["image_ids"],
        step,
    )
    return model.sampled_stages(extracted, targets, sampled, step, training=True)


def test_stages_move_and_score_as_detectron2(detectron2):
    sizes = detectron2["image_size"][None]
    roll = [np.roll(detectron2[f"stage{s}/class_logits"], 1, axis=-1) for s in range(3)]
    for stage in range(2):
        deltas = detectron2[f"stage{stage}/box_deltas"][None, :, None]
        rois = detectron2[f"stage{stage}/in_boxes"][None]
        found = BoxRefinement(WEIGHTS[stage])(deltas, rois, sizes)
        np.testing.assert_allclose(found[0], detectron2[f"stage{stage + 1}/in_boxes"], atol=1e-3)
    probabilities = keras.ops.softmax(MeanLogits()([logits[None] for logits in roll]))
    expected = np.roll(detectron2["mean_scores"], 1, axis=-1)
    np.testing.assert_allclose(probabilities[0], expected, atol=1e-6)


def test_the_first_stage_labels_proposals_as_detectron2(detectron2):
    """With exhaustive sampling: of 2,000 proposals and 4 objects, 44 are foreground."""
    boxes, proposals = detectron2["gt_boxes"], detectron2["proposals"]
    targets = {
        "boxes": boxes[None],
        "labels": detectron2["gt_classes"][None],
        "crowd": np.zeros((1, len(boxes)), bool),
    }
    sampler = RoISampler(batch_size_per_image=5000, positive_fraction=0.5)
    count = np.array([len(proposals)], np.int32)
    rois, classes, _, _ = sampler(proposals[None], count, targets, np.array([1]), np.array(0))
    rois, classes = np.asarray(rois[0]), np.asarray(classes[0])
    assert (classes >= 0).sum() == len(proposals) + len(boxes)
    found, labels = rois[classes > 0], classes[classes > 0] - 1
    order = np.lexsort(found.T)  # by y2, then x2, y1 and x1, as theirs are
    np.testing.assert_array_equal(found[order], detectron2["positives"])
    np.testing.assert_array_equal(labels[order], detectron2["positive_classes"])


def test_refining_is_decoding_and_clipping():
    rois = np.float32([[[0, 0, 10, 20], [5, 5, 15, 15], [0, 0, 0, 0]]])
    deltas = np.float32([[[1, 0, 0, 0], [0, 0, 5 * np.log(4), 0], [3, 3, 3, 3]]])[:, :, None]
    found = BoxRefinement(WEIGHTS[0])(deltas, rois, np.array([[18, 40]], "int32"))
    expected = [[1, 0, 11, 18], [0, 5, 30, 15], [0, 0, 0, 0]]
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_mean_logits_stand_probabilities_of_zero():
    logits = np.float32([[[0, -200, -300]], [[0, -200, -250]]])[:, None]
    found = MeanLogits()(list(logits))
    assert np.isfinite(np.asarray(found)).all()
    np.testing.assert_allclose(keras.ops.softmax(found)[0, 0], [1, 0, 0], atol=1e-20)


def test_a_later_stage_labels_all_boxes_again_and_leaves_out_empty_ones():
    targets = {
        "boxes": np.float32([[[0, 0, 10, 10], [50, 50, 90, 90], [20, 0, 30, 10]]]),
        "labels": np.array([[4, 2, 3]]),
        "crowd": np.array([[False, False, True]]),
    }
    rois = np.float32([[[0, 0, 10, 8], [0, 0, 10, 6.9], [0, 0, 0, 10], [50, 50, 90, 90]]])
    rois = np.concatenate([rois, np.float32([[[20, 0, 30, 10], [0, 0, 10, 10]]])], axis=1)
    real = np.array([[True] * 5 + [False]])
    classes, deltas, matches = RoIMatcher(0.7, WEIGHTS[2])(rois, real, targets)
    # IoU 0.8, 0.69, none, 1, a crowd region alone, and padding.
    assert classes[0].numpy().tolist() == [5, 0, -1, 3, 0, -1]
    assert matches[0, 3] == 1
    np.testing.assert_allclose(deltas[0, 0], [0, 30 * 0.125, 0, 15 * np.log(1.25)], rtol=1e-5)


def test_every_stage_reads_the_boxes_of_the_one_before(stages, batch):
    """Against a loop over boxes: decoded, clipped, and labelled by their own IoU."""
    inputs, targets, _ = batch
    sizes, objects = inputs["image_sizes"].numpy(), targets["boxes"].numpy()
    for number in (1, 2):
        (rois, classes, _, _), (_, deltas, _, _) = stages[number - 1]
        moved, labels, _, _ = stages[number][0]
        deltas = iter(deltas[0, :, 0].numpy())
        for i, j in np.argwhere(classes.numpy() >= 0):
            x1, y1, x2, y2 = rois[i, j].numpy()
            dx, dy, dw, dh = next(deltas) / np.float32(WEIGHTS[number - 1])
            x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
            w = (x2 - x1) * np.exp(min(dw, np.log(1000 / 16)))
            h = (y2 - y1) * np.exp(min(dh, np.log(1000 / 16)))
            limit = [sizes[i, 1], sizes[i, 0]] * 2
            box = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, limit)
            np.testing.assert_allclose(moved[i, j], box, atol=1e-3)
            if (box[2:] <= box[:2]).any():
                assert labels[i, j] == -1
                continue
            real = np.flatnonzero(targets["labels"][i] >= 0)
            overlaps = np.asarray(rk.ops.iou(box[None].astype("f4"), objects[i, real]))[0]
            best = overlaps.max(initial=0)
            if abs(best - THRESHOLDS[number]) > 1e-3:
                label = int(targets["labels"][i, real[overlaps.argmax()]]) + 1
                assert labels[i, j] == (label if best >= THRESHOLDS[number] else 0)
        assert next(deltas, None) is None


def test_stages_have_losses_of_their_own_that_add_up(model, batch, stages):
    _, targets, extracted = batch
    names = [f"{kind}_loss_{n}" for n in (1, 2, 3) for kind in ("class", "box")]
    assert list(model.loss_names) == ["rpn_objectness_loss", "rpn_box_loss", *names, "mask_loss"]
    assert CascadeRCNN.loss_names == model.loss_names[:-1]
    losses = model.losses_of(extracted, targets, training=True)
    assert tuple(losses) == model.loss_names
    for number, (sampled, (logits, deltas, box_targets, classes)) in enumerate(stages, 1):
        total, count = losses[f"class_loss_{number}"]
        assert count == (sampled[1].numpy() >= 0).sum()
        rows = np.arange(logits.shape[1])
        log_p = keras.ops.log_softmax(logits[0]).numpy()
        np.testing.assert_allclose(total, -log_p[rows, classes[0]].sum(), rtol=1e-5)
        error = np.abs(deltas[0, :, 0] - box_targets[0])[classes[0].numpy() > 0]
        smooth = np.where(error < 1 / 9, 4.5 * error**2, error - 1 / 18)
        np.testing.assert_allclose(losses[f"box_loss_{number}"][0], smooth.sum(), rtol=1e-4)


def test_features_get_a_third_of_each_stages_gradient(model, batch):
    _, _, extracted = batch
    features = [tf.identity(x) for x in extracted["features"]]
    rois, image = np.float32([[3, 4, 40, 50]]), np.array([0], "int32")
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(features)
        whole = model.box_pooling(features, rois, image)
        pooled = model.pool_sampled(features, rois, image)
    np.testing.assert_array_equal(pooled, whole)
    level = int(rk.ops.roi_levels(rois[0], [1 / s for s in model.box_pooling.strides]))
    expected = tape.gradient(whole, features[level])
    np.testing.assert_allclose(tape.gradient(pooled, features[level]) * 3, expected, rtol=1e-5)


def test_no_gradient_flows_from_a_stage_through_its_boxes(model, batch):
    _, targets, extracted = batch
    kernels = [head.box_deltas.kernel.value for head in model.box_heads]
    with tf.GradientTape(persistent=True) as tape:
        losses = model.losses_of(extracted, targets, training=True)
        second = losses["class_loss_2"][0] + losses["box_loss_2"][0]
    gradients = tape.gradient(second, kernels)
    assert gradients[0] is None
    assert gradients[2] is None
    assert np.abs(gradients[1]).max() > 0


def test_scores_are_the_mean_of_the_stages_and_boxes_the_last_ones(model, batch):
    inputs, _, _ = batch
    extracted = model.extract_features(inputs, training=False)
    rois, probabilities = extracted["proposals"], 0
    for head, weights in zip(model.box_heads, WEIGHTS, strict=True):
        logits, deltas = head(model.box_pooling(extracted["features"], rois))
        probabilities += keras.ops.softmax(logits) / 3
        moved = rk.ops.decode_boxes(deltas[:, :, 0], rois, weights)
        rois = rk.ops.clip_boxes(moved, inputs["image_sizes"])
    found = model.detections_of(extracted)
    assert found["masks"].shape[2:] == (28, 28)
    for i in range(2):
        n = int(found["num_detections"][i])
        assert n > 1
        for box, score, label in zip(
            *(found[k][i, :n].numpy() for k in ("boxes", "scores", "labels")), strict=True
        ):
            row = np.abs(rois[i] - box).max(axis=1).argmin()
            np.testing.assert_allclose(rois[i, row], box, atol=1e-3)
            np.testing.assert_allclose(probabilities[i, row, label + 1], score, atol=1e-5)


def test_heads_begin_apart_and_have_names(model, scenes, make_detector):
    kernels = [head.trunk.get_layer("fc6").kernel.numpy() for head in model.box_heads]
    assert np.abs(kernels[0] - kernels[1]).max() > 0
    assert np.abs(kernels[1] - kernels[2]).max() > 0
    names = [layer.name for layer in model.layers]
    assert {"box_head_1", "box_head_2", "box_head_3", "refined_boxes_2"} <= set(names)
    assert len({id(weight) for weight in model.weights}) == len(model.weights)


def test_a_batch_without_any_object(model, batch):
    _, targets, extracted = batch
    nothing = targets | {"labels": tf.fill(targets["labels"].shape, -1)}
    losses = model.losses_of(extracted, nothing, training=False)
    for number in (1, 2, 3):
        assert losses[f"box_loss_{number}"][0] == 0
    assert losses["mask_loss"][0] == 0
    assert all(np.isfinite(total) for total, _ in losses.values())


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({}, {}),
        ({"cascade_fg_iou_thresh": ()}, {"cascade_fg_iou_thresh": "must be one or more numbers"}),
        ({"cascade_fg_iou_thresh": 0.5}, {"cascade_fg_iou_thresh": "must be one or more numbers"}),
        (
            {"cascade_fg_iou_thresh": (0.5, 0.6)},
            {"cascade_bbox_reg_weights": "must be four numbers for each of 2 stages"},
        ),
        (
            {"cascade_bbox_reg_weights": ((1.0, 1.0, 1.0),) * 3},
            {"cascade_bbox_reg_weights": "must be four numbers above 0 for each stage"},
        ),
        ({"masks": 1}, {"masks": "must be True or False"}),
        (
            {"mask_head": keras.layers.Flatten()},
            {"mask_head": "must be None without masks=True"},
        ),
    ],
)
def test_arguments_are_checked(changes, errors):
    parameters = inspect.signature(CascadeRCNN).parameters
    config = {name: parameter.default for name, parameter in parameters.items()}
    assert set(config) - {"name"} == set(CASCADE_RCNN)
    config |= {"classes": ("a", "b")} | changes
    found = argument_errors(config, CASCADE_RCNN)
    assert set(found) == set(errors)
    assert all(found[name].startswith(rule) for name, rule in errors.items())


def test_weights_are_handed_on_between_one_head_and_three(model, scenes, make_detector):
    other = make_detector(["x"], architecture=CascadeRCNN, masks=True)
    copied, left = transfer(model, other)
    trunks = {f"box_head_{n}.trunk" for n in (1, 2, 3)}
    assert trunks | {"backbone", "fpn", "mask_head.trunk"} <= set(copied)
    assert {f"box_head_{n}.class_logits" for n in (1, 2, 3)} <= set(left)
    source = make_detector(scenes.classes)
    copied, left = transfer(source, other)
    assert trunks <= set(copied)
    for head in other.box_heads:
        kernel = head.trunk.get_layer("fc6").kernel
        np.testing.assert_array_equal(kernel, source.box_head.trunk.get_layer("fc6").kernel)
    assert {"box_head_1.class_logits", "mask_head.trunk"} <= set(left)
    copied, left = transfer(model, source)
    assert left == ["box_head.class_logits", "box_head.box_deltas"]
    kernel = model.box_heads[0].trunk.get_layer("fc7").kernel
    np.testing.assert_array_equal(source.box_head.trunk.get_layer("fc7").kernel, kernel)


def test_half_precision_keeps_every_head(model, scenes, tmp_path):
    save_half_precision(model, tmp_path)
    assert json.loads((tmp_path / "model.json").read_text())["class_name"] == "CascadeRCNN"
    loaded = load_half_precision(tmp_path)
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        assert ours.path == theirs.path
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_truncated_svd_is_for_fast_rcnn(model):
    with pytest.raises(ValueError, match="truncate_svd is for FastRCNN, not for CascadeRCNN"):
        rk.models.truncate_svd(model)


@pytest.mark.slow
def test_copies_and_files_detect_the_same(model, scenes, tmp_path):
    expected = model.detect(scenes[:2])
    model.save(tmp_path / "model.keras")
    copies = {
        "saved": keras.models.load_model(tmp_path / "model.keras"),
        "portable": rk.models.with_kernels(model, "portable"),
        "folded": rk.models.fold_batchnorm(model),
    }
    for name, copy in copies.items():
        for ours, theirs in zip(copy.detect(scenes[:2]), expected, strict=True):
            np.testing.assert_array_equal(ours.labels, theirs.labels, err_msg=name)
            np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=0.01, err_msg=name)
            np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4, err_msg=name)
            np.testing.assert_allclose(ours.masks, theirs.masks, atol=1e-3, err_msg=name)


@pytest.mark.slow
def test_three_scenes_are_overfitted(scenes, make_detector):
    three = scenes[:3]
    detector = make_detector(scenes.classes, architecture=CascadeRCNN)
    assert not detector.has_masks
    rate = keras.optimizers.schedules.CosineDecay(0.001, 180, warmup_target=0.02, warmup_steps=20)
    detector.compile(keras.optimizers.SGD(rate, momentum=0.9))
    batches = three.batches(3, shuffle=True)
    history = detector.fit(batches, steps_per_epoch=50, epochs=4, verbose=0).history
    assert set(history) == {*detector.loss_names, "loss"}
    total = sum(history[name][-1] for name in detector.loss_names)
    assert total == pytest.approx(history["loss"][-1], rel=1e-4)
    found = {r.image_id: d for r, d in zip(three, detector.detect(three), strict=True)}
    assert rk.evaluation.CocoScores(three, found).summary()["AP75"] > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", "zf"])
def test_heads_of_one_map_are_copies(scenes, make_detector, backbone):
    """The fifth stage of a C4 detector, of which masks share the first; and dropout."""
    detector = make_detector(
        scenes.classes,
        architecture=CascadeRCNN,
        backbone=backbone,
        masks=backbone == "resnet18",
        anchor_sizes=((16, 32, 64),),
        box_score_thresh=0.0,
    )
    trunks = [head.trunk for head in detector.box_heads]
    if backbone == "resnet18":
        shared = trunks[0].get_layer("layer4_0_conv1")
        assert detector.mask_head.trunk.get_layer("layer4_0_conv1") is shared
    else:
        assert len({trunk.get_layer("fc6_dropout").seed for trunk in trunks}) == 3
    detector.compile(keras.optimizers.SGD(0.001))
    losses = detector.fit(scenes[:2].batches(2), verbose=0).history
    assert all(np.isfinite(losses[name]).all() for name in losses)
    assert len(detector.detect(scenes[0].path)[0]) > 0


@pytest.mark.slow
def test_a_cascade_starts_from_other_detectors_files(scenes, make_detector, tmp_path):
    source = make_detector(scenes.classes, architecture=MaskRCNN)
    source.save(tmp_path / "mask.keras")
    started = CascadeRCNN.from_preset(tmp_path / "mask.keras", masks=True)
    upsample = started.mask_head.upsample.kernel
    np.testing.assert_array_equal(upsample, source.mask_head.upsample.kernel)
    started.save(tmp_path / "cascade.keras")
    back = FasterRCNN.from_preset(tmp_path / "cascade.keras", num_classes=2)
    np.testing.assert_array_equal(
        back.rpn_head.objectness.kernel, source.rpn_head.objectness.kernel
    )
