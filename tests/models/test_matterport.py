"""Mask R-CNN with matterport's arithmetic, against numbers of the original."""

import inspect
import json
import sys
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.convert import matterport
from rcnn_keras.data.image_rule import MatterportImageRule, resize_on_zeros
from rcnn_keras.layers import (
    BestClassDetectionLayer,
    CentredCanvas,
    JointProposalLayer,
    PyramidCrop,
)
from rcnn_keras.losses import smooth_l1
from rcnn_keras.models import MatterportMaskRCNN, fold_batchnorm, with_kernels
from rcnn_keras.models.arguments import MATTERPORT
from rcnn_keras.models.batch import complete_inputs
from rcnn_keras.ops import decode_inclusive, nms, to_exclusive, to_inclusive

STORED = Path(__file__).with_name("matterport_golden.npz")
ORACLE = Path(__file__).parents[3] / "shared/oracle/matterport"

SMALL = {
    "backbone_width": 1 / 16,
    "fpn_channels": 16,
    "rpn_channels": 16,
    "box_units": 32,
    "min_dim": 64,
    "max_dim": 128,
    "rpn_pre_nms_top_n": 200,
    "rpn_post_nms_top_n_train": 60,
    "rpn_post_nms_top_n_test": 30,
    "box_batch_size_per_image": 32,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 10,
}


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(STORED))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return MatterportMaskRCNN("resnet50_fpn", ("disc", "star"), **SMALL)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (70, 100, 3), np.uint8)


def yxyx_in_pixels(boxes, shape):
    """The original's boxes in 0..1 as ours on a canvas."""
    h, w = shape[:2]
    y1, x1, y2, x2 = np.moveaxis(np.asarray(boxes, np.float32), -1, 0)
    pixels = np.stack([x1 * (w - 1), y1 * (h - 1), x2 * (w - 1) + 1, y2 * (h - 1) + 1], axis=-1)
    return pixels.astype(np.float32)


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        ({}, (480, 640), (768, 1024)),
        ({}, (500, 333), (1024, 682)),
        ({}, (900, 1000), (900, 1000)),  # never made smaller for its shorter side
        ({"mode": "pad64", "min_size": 512}, (500, 333), (769, 512)),
        ({"mode": "none"}, (512, 640), (512, 640)),
        ({"min_size": 100, "min_scale": 2.0}, (200, 300), (400, 600)),
        ({"min_size": 100, "min_scale": 9.0}, (200, 300), (683, 1024)),
    ],
)
def test_images_are_seen_at_the_original_size_and_the_same_in_a_graph(rule, size, expected):
    rule = MatterportImageRule(**rule)
    assert rule.size(*size) == expected
    assert tuple(rule.size_in_graph(tf.constant(size)).numpy()) == expected


def test_resizing_reads_zeros_around_the_image():
    image = np.random.default_rng(1).integers(0, 256, (5, 7, 1)).astype(np.float64)
    h, w = 8, 9
    expected = np.zeros((h, w))
    for i in range(h):
        for j in range(w):
            y, x = (i + 0.5) * 5 / h - 0.5, (j + 0.5) * 7 / w - 0.5
            for r in (int(np.floor(y)), int(np.floor(y)) + 1):
                for c in (int(np.floor(x)), int(np.floor(x)) + 1):
                    if 0 <= r < 5 and 0 <= c < 7:
                        expected[i, j] += image[r, c, 0] * (1 - abs(y - r)) * (1 - abs(x - c))
    np.testing.assert_allclose(resize_on_zeros(image, h, w)[..., 0], expected, atol=1e-9)


def test_boxes_return_to_whole_pixels_of_the_image():
    rule = MatterportImageRule()
    boxes = np.float32([[0, 0, 1024, 768], [10, 20, 11, 21], [100.2, 50.7, 300.4, 90.1]])
    found = rule.restore(boxes, (768, 1024), (480, 640)).numpy()
    expected = np.around(
        (boxes - [0, 0, 1, 1]) * (np.array([639, 479, 639, 479]) / [1023, 767, 1023, 767])
        + [0, 0, 1, 1]
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found[0], [0, 0, 640, 480])


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_canvases_have_their_images_in_the_middle(kernels, image):
    batch = np.zeros((2, 96, 128, 3), np.float32)
    batch[0, :70, :100], batch[1, :33, :128] = image, 7.0
    sizes = np.array([[70, 100], [33, 128]])
    canvases, whole, windows = CentredCanvas((1.0, 2.0, 3.0), 192, kernels)(batch, sizes)
    np.testing.assert_array_equal(whole, [[192, 192]] * 2)
    np.testing.assert_array_equal(windows, [[46, 61, 146, 131], [32, 79, 160, 112]])
    expected = np.zeros((192, 192, 3), np.float32)
    expected[61:131, 46:146] = image
    np.testing.assert_array_equal(canvases[0], expected - [1, 2, 3])
    least, _, windows = CentredCanvas((0, 0, 0), None, kernels)(batch, sizes)
    assert least.shape == (2, 128, 128, 3)
    np.testing.assert_array_equal(windows[1], [0, 47, 128, 80])


def test_proposals_are_those_of_the_original(golden):
    shape = golden["case_molded_shape"]
    candidates = yxyx_in_pixels(golden["case_pre_nms_boxes"], shape)[None]
    scores = golden["case_pre_nms_score"][None]
    layer = JointProposalLayer((6000, 6000), (2000, 1000))
    index, count = layer.suppress(tf.constant(candidates), tf.constant(scores), None)
    kept = golden["case_nms_ix"]
    np.testing.assert_array_equal(index[0, : len(kept)], kept)
    assert int(count[0]) == len(kept)
    expected = yxyx_in_pixels(golden["case_proposals"], shape)
    np.testing.assert_allclose(candidates[0][kept], expected[: len(kept)], atol=1e-3)


def test_levels_compete_for_the_proposals():
    layer = JointProposalLayer((3, 3), (2, 2), 0.7)
    logits = [tf.constant([[5.0, 4.0]]), tf.constant([[-1.0, 4.5]])]
    anchors = [tf.constant([[0.0, 0, 9, 9], [20, 0, 29, 9]])] * 2
    zeros = [tf.zeros((1, 2, 4))] * 2
    _, scores, _, index = layer.candidates(logits, zeros, anchors, tf.constant([[40, 40]]))
    np.testing.assert_array_equal(index, [[0, 3, 1]])  # of all anchors, whatever their level
    np.testing.assert_allclose(scores, 1 / (1 + np.exp([[-5.0, -4.5, -4.0]])), atol=1e-7)
    kept, count = layer(logits, zeros, anchors, tf.constant([[40, 40]]))
    np.testing.assert_array_equal(kept, [[[0, 0, 9, 9], [20, 0, 29, 9]]])
    assert int(count[0]) == 2


def test_detections_and_masks_are_those_of_the_original(golden):
    shape, (top, left, bottom, right) = golden["case_molded_shape"], golden["case_window"]
    windows = np.float32([[left, top, right, bottom]])
    logits = np.log(golden["case_mrcnn_class"])[None]
    dy, dx, dh, dw = np.moveaxis(golden["case_mrcnn_bbox_top"], -1, 0)
    deltas = np.stack([dx, dy, dw, dh], axis=-1)[None, :, None]
    rois = yxyx_in_pixels(golden["case_proposals"], shape)[None]
    layer = BestClassDetectionLayer(0.9, 0.3, 100)
    found = layer(logits, deltas, rois, np.array([1000]), windows)
    count = int(found["num_detections"][0])
    assert count == len(golden["case_rois"])
    np.testing.assert_allclose(found["scores"][0, :count], golden["case_scores"], atol=1e-5)
    np.testing.assert_array_equal(found["labels"][0, :count] + 1, golden["case_class_ids"])
    boxes = found["boxes"][0, :count] - np.tile(windows[0, :2], 2)
    rule = MatterportImageRule()
    whole = rule.restore(boxes, rule.size(500, 333), (500, 333)).numpy()
    np.testing.assert_array_equal(whole[:, [1, 0, 3, 2]], golden["case_rois"])

    masks = golden["case_masks28"].astype(np.float32)
    pasted = rk.data.paste_masks(masks, whole[: len(masks)], (500, 333), 0.5, "matterport")
    stored = np.unpackbits(golden["case_masks_packed"], axis=1)[:, : 500 * 333]
    different = (pasted.reshape(len(masks), -1) != stored).sum()
    assert different <= 4  # stored masks are float16


def test_masks_are_pasted_as_the_original_does(golden):
    masks = golden["unit_unmold_mask28_f16"].astype(np.float32)
    boxes = golden["unit_unmold_box"][:, [1, 0, 3, 2]]
    pasted = rk.data.paste_masks(masks, boxes, (120, 100), 0.5, "matterport")
    stored = np.unpackbits(golden["unit_unmold_masks"], axis=1).reshape(-1, 120, 100)
    np.testing.assert_array_equal(pasted, stored)
    runs = rk.data.encode_masks(masks, boxes, (120, 100), rule="matterport")
    decoded = [rk.data.decode_mask(code, 120, 100) for code in runs]
    np.testing.assert_array_equal(decoded, pasted)
    with pytest.raises(ValueError, match="rule must be one of torchvision, matterport"):
        rk.data.paste_masks(masks, boxes, (120, 100), rule="matteport")


def test_boxes_move_and_overlap_as_in_the_original(golden):
    boxes = golden["unit_boxes_norm_of_480x640"]
    deltas = golden["unit_delta_in"][:, [1, 0, 3, 2]]
    ours = yxyx_in_pixels(boxes, (480, 640))
    moved = decode_inclusive(deltas, ours, (1.0, 1.0, 1.0, 1.0))
    expected = yxyx_in_pixels(golden["unit_apply_box_deltas_out"], (480, 640))
    np.testing.assert_allclose(moved, expected, rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(to_exclusive(to_inclusive(ours)), ours)


def test_losses_are_means_over_the_original_denominators(golden, model):
    """Of the RPN and the box head, as `loss_units` has them."""
    match = golden["unit_rpn_match"][..., 0]
    logits = golden["unit_rpn_class_logits"]
    labels = np.where(match == 0, -1, np.maximum(match, 0))  # theirs: 0 neutral, -1 negative
    difference = tf.constant(logits[..., 1] - logits[..., 0])
    count = (match == 1).sum(axis=1)
    targets = np.zeros((*match.shape, 4), np.float32)
    for i, number in enumerate(count):
        targets[i, match[i] == 1] = golden["unit_rpn_target_bbox"][i, :number]
    losses = model.rpn_losses_of(
        difference, tf.constant(golden["unit_rpn_bbox"]), tf.constant(targets), tf.constant(labels)
    )
    means = {name: float(total / count) for name, (total, count) in losses.items()}
    assert means["rpn_objectness_loss"] == pytest.approx(golden["unit_rpn_class_loss"], rel=1e-5)
    assert means["rpn_box_loss"] == pytest.approx(golden["unit_rpn_bbox_loss"], rel=1e-5)
    values = smooth_l1(tf.constant(golden["unit_smooth_l1_x"]), 0.0, 1.0)
    np.testing.assert_allclose(values, golden["unit_smooth_l1_y"], atol=1e-6)


@pytest.mark.parametrize("kernels", ["native", "portable"])
def test_rois_are_read_at_one_sample_a_cell_from_the_nearest_level(kernels):
    rng = np.random.default_rng(2)
    features = [rng.normal(size=(2, 64 // s, 128 // s, 3)).astype(np.float32) for s in (4, 8)]
    rois = np.float32([[0, 0, 128, 64], [10.5, 3, 50.25, 40], [5, 5, 9, 30], [7, 7, 8, 8]])
    image = np.array([0, 1, 1, 0], np.int32)
    pooled = PyramidCrop(3, (4, 8), kernels)(features, rois, image)
    for roi, place, found in zip(rois, image, pooled, strict=True):
        x1, y1, x2, y2 = (roi - [0, 0, 1, 1]) / [127, 63, 127, 63]
        area = max((x2 - x1) * (y2 - y1), 1e-30)
        level = np.around(4 + np.log2(np.sqrt(area) * np.sqrt(64 * 128) / 224))
        of_level = features[int(np.clip(level, 2, 3)) - 2][place]
        h, w = of_level.shape[:2]
        for i in range(3):
            for j in range(3):
                y, x = (y1 + (y2 - y1) * i / 2) * (h - 1), (x1 + (x2 - x1) * j / 2) * (w - 1)
                r, c = min(int(y), h - 2), min(int(x), w - 2)
                part = of_level[r : r + 2, c : c + 2]
                a, b = y - r, x - c
                expected = (1 - a) * ((1 - b) * part[0, 0] + b * part[0, 1])
                expected += a * ((1 - b) * part[1, 0] + b * part[1, 1])
                np.testing.assert_allclose(found[i, j], expected, atol=1e-4)


def test_the_gradient_of_pooling_is_that_of_crop_and_resize():
    rng = np.random.default_rng(3)
    feature = tf.constant(rng.normal(size=(1, 16, 16, 2)).astype(np.float32))
    rois, image = tf.constant([[3.0, 5, 50, 40], [10, 10, 30, 60]]), tf.constant([0, 0])
    weights = tf.constant(rng.normal(size=(2, 4, 4, 2)).astype(np.float32))
    layer = PyramidCrop(4, (4,))
    boxes = tf.gather((rois - [0.0, 0, 1, 1]) / 63.0, [1, 0, 3, 2], axis=1)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(feature)
        ours = tf.reduce_sum(layer([feature], rois, image) * weights)
        theirs = tf.image.crop_and_resize(feature, boxes, image, [4, 4])
        theirs = tf.reduce_sum(theirs * weights)
    np.testing.assert_allclose(
        tape.gradient(ours, feature), tape.gradient(theirs, feature), atol=1e-5
    )


@pytest.mark.slow  # a graph of its own; see the stored numbers
def test_detections_are_whole_pixels_and_masks_fill_their_boxes(model, image):
    (found,) = model.detect(image)
    assert 0 < len(found) <= 10
    np.testing.assert_array_equal(found.boxes, np.round(found.boxes))
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= [100, 70]).all()
    assert found.mask_pasting == "matterport"
    whole = found.bool_masks()
    assert whole.shape == (len(found), 70, 100)
    x1, y1, x2, y2 = found.boxes[0].astype(int)
    outside = whole[0].copy()
    outside[y1:y2, x1:x2] = False
    assert not outside.any()


@pytest.mark.slow
def test_a_saved_model_detects_the_same(model, image, tmp_path):
    (before,) = model.detect(image)
    model.save(tmp_path / "model.keras")
    (after,) = rk.models.load_detector(tmp_path / "model.keras").detect(image)
    np.testing.assert_array_equal(after.boxes, before.boxes)
    np.testing.assert_allclose(after.scores, before.scores, atol=1e-6)


@pytest.mark.slow
def test_portable_kernels_and_folded_norms_detect_the_same(model, image):
    inputs = {"images": image[None].astype(np.float32), "image_sizes": np.array([[70, 100]])}
    before = model(inputs, training=False)
    for changed in (with_kernels(model, "portable"), fold_batchnorm(model)):
        after = changed(inputs, training=False)
        real = np.asarray(before["boxes"])[0]
        np.testing.assert_allclose(np.asarray(after["boxes"])[0][:5], real[:5], atol=0.05)
        np.testing.assert_allclose(after["scores"], before["scores"], atol=1e-4)


@pytest.mark.slow
def test_an_exported_model_resizes_detects_and_pastes_the_same(model, image, tmp_path):
    (found,) = model.detect(image)
    folder = model.export(tmp_path / "served", paste_masks=True)
    served = tf.saved_model.load(folder).signatures["serving_default"]
    outputs = served(images=tf.constant(image[None]))
    count = len(found)
    np.testing.assert_array_equal(outputs["boxes"][0, :count], found.boxes)
    np.testing.assert_allclose(outputs["scores"][0, :count], found.scores, atol=1e-5)
    different = (outputs["masks"][0, :count].numpy() != found.bool_masks()).sum()
    assert different <= 5  # values next to one half


@pytest.mark.slow
def test_a_litert_file_takes_images_of_one_size(model, tmp_path):
    pytest.importorskip("ai_edge_litert")
    from ai_edge_litert.interpreter import Interpreter

    path = model.export(tmp_path / "model.tflite", size=(64, 128))
    run = Interpreter(str(path)).get_signature_runner()
    image = np.random.default_rng(4).integers(0, 256, (1, 64, 128, 3), np.uint8)
    outputs = run(images=image)
    found = with_kernels(model, "portable")(image.astype(np.float32), training=False)
    np.testing.assert_allclose(outputs["scores"], found["scores"], atol=1e-4)
    np.testing.assert_allclose(outputs["boxes"][0, :3], found["boxes"][0, :3], atol=0.1)


@pytest.mark.slow
def test_it_trains_as_other_models_and_batches_have_no_sizes_of_their_own(model):
    data = rk.data.draw_shapes(2, size=(64, 96)).with_classes(["circle", "star"])
    trained = MatterportMaskRCNN.from_config(model.get_config() | {"classes": data.classes})
    trained.compile(keras.optimizers.SGD(0.005, momentum=0.9, global_clipnorm=5.0))
    history = trained.fit(data.batches(1), epochs=2, verbose=0).history
    assert set(trained.loss_names) < set(history)
    assert np.isfinite(list(history.values())).all()
    with pytest.raises(ValueError, match="no min_size"):
        trained.fit(data.batches(1, min_size=100), verbose=0)


def test_every_argument_has_a_rule():
    assert set(inspect.signature(MatterportMaskRCNN).parameters) - {"name"} == set(MATTERPORT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_dim": 100}, "max_dim must be a multiple of 64"),
        ({"resize_mode": "crop"}, "resize_mode must be one of square, pad64, none"),
        ({"backbone": "resnet34_fpn"}, "backbone must be one of resnet50_fpn, resnet101_fpn"),
        ({"anchor_sizes": ((32, 64),) * 5}, "anchor_sizes must be a list of one size"),
        ({"anchor_sizes": ((32,),) * 4}, "anchor_sizes must have 5 levels"),
        ({"pooled_size": 1}, "pooled_size must be a whole number of at least 2"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MatterportMaskRCNN(**{"backbone": "resnet50_fpn", "num_classes": 2} | arguments)


# Whole cases of the original; the weights are drawn from a seed.

CASES = {
    "coco_480x640": ("coco_r101", {}),
    "balloon_480x640": ("balloon_r50", {"DETECTION_MIN_CONFIDENCE": 0.9}),
    "balloon_500x333": ("balloon_r50", {"DETECTION_MIN_CONFIDENCE": 0.9}),
    "balloon_pad64_500x333": (
        "balloon_r50",
        {"DETECTION_MIN_CONFIDENCE": 0.9, "IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": 512},
    ),
    "balloon_none_512x640": (
        "balloon_r50",
        {"DETECTION_MIN_CONFIDENCE": 0.9, "IMAGE_RESIZE_MODE": "none"},
    ),
    "balloon_stride2_480x640": (
        "balloon_r50",
        {"DETECTION_MIN_CONFIDENCE": 0.9, "RPN_ANCHOR_STRIDE": 2},
    ),
}


@pytest.fixture(scope="module")
def seeded(tmp_path_factory):
    if not (ORACLE / "seeded_h5.py").is_file():
        pytest.skip(f"{ORACLE} is not here: numbers of whole cases are not part of the package")
    sys.path.insert(0, str(ORACLE))
    import seeded_h5

    folder = tmp_path_factory.mktemp("weights")
    for net in ("coco_r101", "balloon_r50"):
        layout = json.loads((ORACLE / f"layout_{net}.json").read_text())
        seeded_h5.write_h5(layout, folder / f"{net}.h5")
    return folder, seeded_h5.seeded_image


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_whole_cases_are_those_of_the_original(case, seeded):
    folder, seeded_image = seeded
    net, config = CASES[case]
    stored = np.load(ORACLE / f"case_{case}.npz")
    model = matterport.load(folder / f"{net}.h5", config=config)
    height, width, seed = map(int, stored["image_hw_seed"])
    image = seeded_image(height, width, seed)
    rule = model.image_rule
    seen = np.asarray(rule.resize(image, *rule.size(height, width))).astype(np.uint8)
    assert zlib.crc32(seen.tobytes()) == int(stored["resized_u8_crc32"])
    (found,) = model.detect(image)
    np.testing.assert_array_equal(found.boxes[:, [1, 0, 3, 2]], stored["rois"])
    np.testing.assert_array_equal(found.labels + 1, stored["class_ids"])
    np.testing.assert_allclose(found.scores, stored["scores"], atol=1e-4)
    np.testing.assert_allclose(found.masks, stored["masks28_f16"].astype(np.float32), atol=1e-3)
    areas = found.bool_masks().sum(axis=(1, 2))
    assert np.abs(areas - stored["mask_area"]).max() <= 1


@pytest.mark.slow
def test_losses_of_given_samples_are_those_of_the_original(seeded):
    folder, seeded_image = seeded
    stored = np.load(ORACLE / "loss_training.npz")
    config = {"IMAGE_MIN_DIM": 400, "IMAGE_MAX_DIM": 512}
    model = matterport.load(folder / "balloon_r50.h5", config=config)
    height, width, seed = map(int, stored["image_hw_seed"])
    size = model.image_rule.size(height, width)
    seen = model.image_rule.resize(seeded_image(height, width, seed), *size)
    inputs = complete_inputs({"images": seen[None], "image_sizes": np.array([size])})
    extracted = model.extract_features(inputs, training=False)

    index = np.flatnonzero(stored["rpn_match"])
    labels = (stored["rpn_match"][index] > 0).astype(np.int32)[None]
    logits, deltas = (
        np.concatenate(extracted[name], axis=1)[:, index] for name in ("rpn_logits", "rpn_deltas")
    )
    targets = np.zeros(deltas.shape, np.float32)
    targets[labels == 1] = stored["rpn_bbox"][: labels.sum()][:, [1, 0, 3, 2]]
    losses = model.rpn_losses_of(*map(tf.constant, (logits, deltas, targets, labels)))

    rois = tf.constant(yxyx_in_pixels(stored["full_target_rois"], (512, 512))[None])
    classes = stored["full_target_class_ids"][None]
    targets = stored["full_target_deltas"][None][..., [1, 0, 3, 2]]
    real = np.flatnonzero(classes[0] > 0)
    masks = np.unpackbits(stored["full_target_masks"], axis=1).reshape(-1, 28, 28)[real]
    image = tf.zeros(len(real), tf.int32)
    pooled = model.mask_roi_align(extracted["features"], tf.gather(rois[0], real), image)
    every = tf.fill([len(real)], True)
    drawn = model.mask_head(pooled)[..., 0], tf.constant(masks, tf.float32), every
    model.draw_sampled = lambda *_: drawn
    matches = tf.zeros(classes.shape, tf.int32)
    sampled = (rois, tf.constant(classes), tf.constant(targets), matches)
    losses |= model.roi_losses_of(extracted, {}, sampled, tf.constant(0), False)
    found = [float(losses[name][0] / losses[name][1]) for name in model.loss_names]
    order = ["rpn_objectness_loss", "rpn_box_loss", "class_loss", "box_loss", "mask_loss"]
    assert list(model.loss_names) == order
    np.testing.assert_allclose(found, stored["full_losses"], rtol=1e-4)


def test_kept_boxes_do_not_depend_on_a_threshold_of_exactly_their_overlap():
    boxes = tf.constant([[[0.0, 0, 10, 10], [0, 0, 10, 7]]])
    _, count = nms(boxes, tf.constant([[0.9, 0.8]]), 0.7, 2)
    assert int(count[0]) == 2  # equal is kept
