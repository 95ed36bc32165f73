"""What is explained is what the detector computes: against its own methods, and slow loops."""

from dataclasses import replace

import keras
import numpy as np
import pytest
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.data.images import ImageError
from rcnn_keras.data.inputs import input_batches
from rcnn_keras.explain import FeatureMap
from rcnn_keras.explain.forward import where_read
from rcnn_keras.layers import RoIAlign
from rcnn_keras.models import RCNN, CascadeRCNN, FasterRCNN, FastRCNN, MaskRCNN
from rcnn_keras.ops import decode_boxes, iou

CLASSES = ("circle", "triangle", "square", "star")
SMALL = {"min_size": 64, "max_size": 80, "box_units": 8, "recompute_stages": 0}
RPN = {
    "rpn_pre_nms_top_n_test": 60,
    "rpn_post_nms_top_n_test": 30,
    "rpn_nms_thresh": 0.8,
    "box_nms_thresh": 0.2,
    "box_detections_per_img": 20,
    "box_batch_size_per_image": 16,
}


def backbone(*strides):
    """A few convolutions, each of which gives a map."""
    x = images = keras.Input((None, None, 3))
    maps = []
    for stride in strides:
        x = keras.layers.Conv2D(8, 3, stride, "same", activation="relu")(x)
        maps.append(x)
    return keras.Model(images, maps)


MODELS = {
    "rcnn": lambda: RCNN(
        *("alexnet", CLASSES),
        crop_size=67,
        context=8,
        channels=(8,) * 5,
        units=16,
        box_score_thresh=0.1,
    ),
    "fast": lambda: FastRCNN(backbone(8), CLASSES, **SMALL, box_batch_size_per_image=16),
    "faster": lambda: FasterRCNN(backbone(8), CLASSES, anchor_sizes=[[8, 16, 32]], **SMALL, **RPN),
    "mask": lambda: MaskRCNN(
        *("resnet18_fpn", CLASSES),
        backbone_width=0.125,
        fpn_channels=8,
        roi_aligned=True,
        anchor_sizes=[[8], [16], [32], [64], [128]],
        **(SMALL | RPN),
    ),
}
ALL = pytest.mark.parametrize("kind", list(MODELS))
WITH_LOSSES = pytest.mark.parametrize("kind", ["fast", "faster", "mask"])
WITH_RPN = pytest.mark.parametrize("kind", ["faster", "mask"])
MODELS["cascade"] = lambda: CascadeRCNN(
    backbone(8), CLASSES, anchor_sizes=[[8, 16, 32]], **SMALL, **RPN, masks=True
)


def near(record, seed=0):
    """Proposals about the objects, and anywhere."""
    rng = np.random.default_rng(seed)
    about = record.boxes.repeat(5, axis=0) + rng.normal(0, 4, (5 * len(record), 4))
    corner = rng.uniform(0, 60, (20, 2))
    anywhere = np.concatenate([corner, corner + rng.uniform(8, 50, (20, 2))], axis=1)
    boxes = np.concatenate([about, anywhere])
    return boxes.clip(0, [record.width, record.height] * 2).astype("f4")


@pytest.fixture(scope="module")
def looked(record):
    """A function from a kind to an untrained model, its inputs and its explanation."""
    made = {}

    def look(kind):
        if kind not in made:
            keras.utils.set_random_seed(0)
            model = MODELS[kind]()
            model.compile(run_eagerly=True)  # there is nothing to trace
            heads = [model.svm] if kind == "rcnn" else [h.class_logits for h in model.box_heads]
            for head in heads:
                shape, spread = head.kernel.shape, 2 if kind == "rcnn" else 10
                head.kernel.assign(np.random.default_rng(0).normal(0, spread, shape))
            if kind == "cascade":
                for head in model.box_heads:
                    shape = head.box_deltas.kernel.shape
                    head.box_deltas.kernel.assign(np.random.default_rng(1).normal(0, 1, shape))
            proposals = [near(record)] if model.takes_proposals else None
            explanation = rk.visualize.explain(model, record, proposals=proposals)
            dataset = rk.data.DetectionDataset([record], CLASSES)
            dataset = model.dataset_of(dataset, proposals)
            (inputs,) = input_batches(model._sized(dataset.batches(1)))
            made[kind] = model, inputs, explanation, dataset
        return made[kind]

    return look


@ALL
def test_the_detections_are_those_of_detect(looked, kind):
    model, _, explanation, dataset = looked(kind)
    (expected,) = model.detect(dataset)
    found = explanation.detections
    assert len(found) > 1
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-4)
    if kind == "mask":
        np.testing.assert_allclose(explanation.masks, expected.masks, atol=1e-4)
    else:
        assert explanation.masks is None
    assert explanation.why_empty == ""


@ALL
def test_input_features_and_proposals_are_those_that_the_model_extracts(looked, kind):
    model, inputs, explanation, _ = looked(kind)
    extracted = model.extract_features(inputs, training=False)
    np.testing.assert_array_equal(explanation.input.pixels, inputs["images"][0])
    assert explanation.input.size == ((90, 120) if kind == "rcnn" else (60, 80))
    count = int(extracted["num_proposals"][0])
    expected = np.asarray(extracted["proposals"])[0, :count]
    np.testing.assert_allclose(explanation.proposals.boxes, expected, atol=1e-4)
    if kind == "rcnn":
        assert explanation.features == ()
        assert explanation.input.padded_size == explanation.input.pixels.shape[:2]
        return
    assert explanation.input.padded_size == extracted["images"].shape[1:3]
    for level, values in zip(explanation.features, extracted["features"], strict=True):
        np.testing.assert_allclose(level.values, np.asarray(values)[0], atol=1e-4)
        assert level.stride * level.values.shape[0] == explanation.input.padded_size[0]


@WITH_RPN
def test_anchors_and_objectness_lie_where_the_rpn_has_them(looked, kind):
    model, inputs, explanation, _ = looked(kind)
    extracted = model.extract_features(inputs, training=False)
    for level, anchors in enumerate(extracted["anchors"]):
        np.testing.assert_array_equal(explanation.anchors[level], anchors)
        logits = np.asarray(extracted["rpn_logits"][level])[0]
        k = explanation.objectness[level].shape[2]
        assert k == (9 if kind == "faster" else 3)
        height, width = explanation.features[level].values.shape[:2]
        for row, column, i in ((0, 1, 0), (height - 1, 0, k - 1)):
            number = (row * width + column) * k + i
            expected = 1 / (1 + np.exp(-logits[number]))
            found = explanation.objectness[level][row, column, i]
            np.testing.assert_allclose(found, expected, atol=1e-5)


def slow_nms(suppression):
    """Which candidate removes each one, candidate by candidate, in float64."""
    by, kept = [], []
    boxes = suppression.boxes.astype(float)
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        cause = i if len(kept) < suppression.limit else -1
        for j in kept:
            wide = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0])
            high = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1])
            both = max(wide, 0) * max(high, 0)
            size = (boxes[j, 2] - boxes[j, 0]) * (boxes[j, 3] - boxes[j, 1])
            union = (x2 - x1) * (y2 - y1) + size - both
            same = suppression.groups[i] == suppression.groups[j]
            if same and both / union > suppression.iou_threshold:
                cause = j
                break
        if cause == i:
            kept.append(i)
        by.append(cause)
    return by, kept


@ALL
def test_what_nms_removes_of_the_detections_and_because_of_whom(looked, kind):
    _, _, explanation, _ = looked(kind)
    suppressed = explanation.suppressed
    assert (np.diff(suppressed.scores) <= 0).all()
    assert (suppressed.scores > explanation.score_threshold).all()
    by, kept = slow_nms(suppressed)
    np.testing.assert_array_equal(suppressed.by, by)
    np.testing.assert_array_equal(suppressed.kept, kept)
    removed = np.flatnonzero((suppressed.by >= 0) & (suppressed.by != np.arange(len(by))))
    assert len(removed)
    assert (suppressed.overlaps[removed] > suppressed.iou_threshold).all()
    first = explanation.paths[0].candidate
    expected = [i for i in removed if by[i] == first]
    np.testing.assert_array_equal(suppressed.removed_by(first), expected)
    np.testing.assert_array_equal(suppressed.boxes[suppressed.kept[0]], explanation.paths[0].box)


@WITH_RPN
def test_what_nms_removes_of_the_proposals(looked, kind):
    _, _, explanation, _ = looked(kind)
    proposals = explanation.proposals
    by, kept = slow_nms(proposals.suppression)
    np.testing.assert_array_equal(proposals.suppression.by, by)
    np.testing.assert_array_equal(proposals.suppression.kept, kept)
    np.testing.assert_array_equal(proposals.boxes, proposals.suppression.boxes[kept])
    np.testing.assert_array_equal(proposals.scores, proposals.suppression.scores[kept])


@WITH_RPN
def test_each_path_leads_from_its_anchor_to_its_detection(looked, kind):
    model, inputs, explanation, _ = looked(kind)
    deltas = model.extract_features(inputs, training=False)["rpn_deltas"]
    height, width = explanation.input.size
    for path, roi in zip(explanation.paths, explanation.rois, strict=True):
        np.testing.assert_array_equal(path.proposal, explanation.proposals.boxes[roi.number])
        places = (explanation.anchors[path.level] == path.anchor).all(axis=1).nonzero()[0]
        moved = decode_boxes(np.asarray(deltas[path.level])[0, places], path.anchor[None])
        moved = np.clip(moved, 0, [width, height, width, height])
        assert np.abs(moved - path.proposal).max(axis=1).min() < 1e-3
        assert np.abs(explanation.objectness[path.level] - path.objectness).min() < 1e-5


@ALL
def test_each_box_is_its_proposal_moved_and_scored(looked, kind):
    _, _, explanation, _ = looked(kind)
    scale = explanation.input.image.shape[0] / explanation.input.size[0]
    boxes = np.array([path.box for path in explanation.paths])
    np.testing.assert_allclose(boxes * scale, explanation.detections.boxes, rtol=1e-5)
    for path, roi in zip(explanation.paths, explanation.rois, strict=True):
        score = explanation.class_probabilities[roi.number, path.label]
        np.testing.assert_allclose(path.score, score, rtol=1e-6)
        overlap = float(np.asarray(iou(path.box[None], path.proposal[None]))[0, 0])
        assert overlap > 0.1 or kind == "mask"
    if kind == "rcnn":  # a sigmoid for each class
        assert explanation.probabilities.shape[1] == len(CLASSES)
    else:
        np.testing.assert_allclose(explanation.probabilities.sum(axis=1), 1, rtol=1e-5)


def at(values, y, x):
    """The map between four positions, by hand, its border going on for one more position."""
    y, x = (min(max(p, 0), n - 1) for p, n in zip((y, x), values.shape, strict=False))
    top, left = int(y), int(x)
    bottom, right = min(top + 1, values.shape[0] - 1), min(left + 1, values.shape[1] - 1)
    upper = values[top, left] * (left + 1 - x) + values[top, right] * (x - left)
    lower = values[bottom, left] * (left + 1 - x) + values[bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def test_roi_align_read_the_map_at_the_points_that_are_shown(looked):
    _, _, explanation, _ = looked("mask")
    for roi in explanation.rois:
        values = explanation.features[roi.level].values
        assert roi.rows.shape == roi.columns.shape == (14,)
        for row, column in ((0, 0), (3, 6), (6, 2)):
            samples = [
                at(values, y, x)
                for y in roi.rows[2 * row : 2 * row + 2]
                for x in roi.columns[2 * column : 2 * column + 2]
            ]
            np.testing.assert_allclose(roi.pooled[row, column], np.mean(samples, axis=0), atol=1e-4)
        places = (roi.columns + roi.offset) * explanation.features[roi.level].stride
        assert roi.box[0] < places.min()
        assert places.max() < roi.box[2]


def test_a_roi_is_shown_on_the_level_that_its_size_chooses():
    rng = np.random.default_rng(0)
    levels = tuple(FeatureMap(rng.normal(size=(256 // s, 256 // s, 2)), s) for s in (4, 8))
    pooling = RoIAlign(7, (4, 8), sampling_ratio=1)
    for box, level in (((10, 12, 60, 70), 0), ((3, 5, 240, 250), 1)):
        box = np.array(box, "f4")
        pooled = np.asarray(pooling([x.values[None] for x in levels], box[None, None]))[0, 0]
        roi = where_read(pooling, 0, box, pooled, levels)
        assert roi.level == level
        expected = at(levels[level].values, roi.rows[2], roi.columns[5])
        np.testing.assert_allclose(pooled[2, 5], expected, atol=1e-4)


def test_of_a_layer_of_ones_own_it_is_not_known_where_it_reads():
    roi = where_read(keras.layers.Identity(), 3, np.zeros(4), np.zeros((7, 7, 2)), ())
    assert (roi.number, roi.kind, roi.level, roi.rows) == (3, "Identity", None, None)


def test_roi_pool_took_the_maxima_of_the_cells_that_are_shown(looked):
    _, _, explanation, _ = looked("fast")
    for roi in explanation.rois:
        values = explanation.features[roi.level].values
        for i, (top, bottom) in enumerate(roi.rows):
            for j, (left, right) in enumerate(roi.columns):
                cell = values[top:bottom, left:right].reshape(-1, values.shape[-1])
                expected = cell.max(axis=0) if len(cell) else np.zeros(values.shape[-1])
                np.testing.assert_allclose(roi.pooled[i, j], expected, atol=1e-5)


def test_the_crops_of_rcnn_give_their_pool5(looked):
    model, _, explanation, _ = looked("rcnn")
    for roi in explanation.rois[:2]:
        crop = (roi.crop - np.array(model.normalize.mean)) / np.array(model.normalize.std)
        pool5 = np.asarray(model.network(crop[None].astype("f4"))["pool5"])[0]
        assert roi.pooled.shape == pool5.shape
        # The crop that is shown is rounded to whole numbers.
        np.testing.assert_allclose(roi.pooled, pool5, atol=0.02 * np.abs(pool5).max())


@WITH_LOSSES
def test_the_losses_of_the_samples_are_those_of_evaluate(looked, kind):
    model, _, explanation, dataset = looked(kind)
    inputs, targets = next(iter(model._with_truth(dataset.batches(1)).tf_dataset()))
    expected = model.test_on_batch(inputs, targets, return_dict=True)
    training = explanation.training
    assert set(training.losses) == set(model.loss_names)
    for name, value in training.losses.items():
        np.testing.assert_allclose(value, float(expected[name]), rtol=1e-4)
    rois = training.rois
    assert len(rois.classes) <= 16
    assert (rois.losses["box_loss"][rois.classes == 0] == 0).all()
    np.testing.assert_allclose(rois.losses["class_loss"].mean(), training.losses["class_loss"])


@WITH_LOSSES
def test_samples_are_what_the_overlaps_say(looked, record, kind):
    _, _, explanation, _ = looked(kind)
    training = explanation.training
    np.testing.assert_allclose(training.boxes, record.boxes * 2 / 3, rtol=1e-5)
    overlaps = np.asarray(iou(training.rois.boxes, training.boxes))
    positive = training.rois.classes > 0
    assert positive.any()
    assert (overlaps.max(axis=1) >= 0.5)[positive].all()
    assert (overlaps.max(axis=1) < 0.5)[~positive].all()
    matches = training.rois.matches[positive]
    np.testing.assert_array_equal(matches, overlaps[positive].argmax(axis=1))
    np.testing.assert_array_equal(training.rois.classes[positive], training.labels[matches] + 1)
    best = np.asarray(iou(training.boxes, explanation.proposals.boxes)).max(axis=1)
    np.testing.assert_allclose(training.best_overlaps, best, atol=1e-5)


def test_anchors_match_by_their_overlaps(looked):
    _, _, explanation, _ = looked("mask")
    anchors = explanation.training.anchors
    overlaps = np.asarray(iou(np.concatenate(explanation.anchors), explanation.training.boxes))
    best = overlaps.max(axis=1)
    forced = ((overlaps == overlaps.max(axis=0)) & (overlaps > 0)).any(axis=1)
    expected = np.where(best >= 0.7, 1, np.where(best < 0.3, 0, -1))
    np.testing.assert_array_equal(anchors.match_labels, np.where(forced, 1, expected))
    positive = anchors.match_labels == 1
    np.testing.assert_array_equal(anchors.matches[positive], overlaps[positive].argmax(axis=1))


def test_rcnn_has_matches_and_no_common_loss(looked):
    _, _, explanation, _ = looked("rcnn")
    assert explanation.training.losses == {}
    assert explanation.training.rois is None
    assert (explanation.training.best_overlaps > 0.5).all()


@pytest.mark.parametrize("kind", ["rcnn", "mask"])
def test_pictures_and_page_of_a_model(looked, kind, tmp_path):
    _, _, explanation, _ = looked(kind)
    explanation.save(tmp_path / "new" / "page.html")
    page = (tmp_path / "new" / "page.html").read_text("utf-8")
    assert explanation.detections.summary() in page
    for draw in (explanation.draw_roi, explanation.draw_path, explanation.draw_suppressed):
        assert draw(1).width > 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rcnn", "faster"])
def test_a_model_that_runs_in_a_graph_is_explained_as_it_runs(looked, kind):
    model, _, eager, dataset = looked(kind)
    model.run_eagerly = False
    try:
        explanation = rk.visualize.explain(model, dataset[0])
        (expected,) = model.detect(dataset)
    finally:
        model.run_eagerly = True
    np.testing.assert_array_equal(explanation.detections.labels, expected.labels)
    np.testing.assert_allclose(explanation.detections.boxes, expected.boxes, atol=1e-4)
    np.testing.assert_allclose(explanation.proposals.boxes, eager.proposals.boxes, atol=1e-3)
    assert explanation.training.losses == pytest.approx(eager.training.losses, rel=1e-4)


def assert_explained_as_detected(model, image):
    model.compile(run_eagerly=True)
    explanation = rk.visualize.explain(model, image)
    (expected,) = model.detect(image)
    assert len(expected)
    np.testing.assert_array_equal(explanation.detections.labels, expected.labels)
    np.testing.assert_allclose(explanation.detections.boxes, expected.boxes, atol=1e-3)
    assert explanation.draw_roi(0).width > 100
    assert "Detection" in explanation.html()
    return explanation


def test_portable_kernels_are_explained(looked, record):
    model, _, native, _ = looked("faster")
    explanation = assert_explained_as_detected(
        rk.models.with_kernels(model, "portable"), record.image
    )
    np.testing.assert_allclose(explanation.proposals.boxes, native.proposals.boxes, atol=1e-2)


@pytest.mark.filterwarnings("ignore:.*bfloat16")
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_is_explained(policy, looked, record):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = MODELS["faster"]()
    finally:
        keras.config.set_dtype_policy(before)
    model.set_weights(looked("faster")[0].get_weights())
    explanation = assert_explained_as_detected(model, record.image)
    assert all(f.values.dtype == np.float32 for f in explanation.features)


@pytest.mark.parametrize("kind", ["gray 16 bits", "RGBA", "CMYK", "turned"])
def test_pictures_of_any_kind_are_explained_as_they_are_detected(kind, looked, record, tmp_path):
    model, *_ = looked("faster")
    with Image.open(record.path) as file:
        picture = file.convert("RGB").crop((0, 0, 64, 48))
    path = tmp_path / "picture.png"
    size = (48, 64)
    if kind == "gray 16 bits":
        gray = np.asarray(picture.convert("L"), np.uint16)
        Image.fromarray(gray * 257).save(path)
    elif kind == "CMYK":
        path = path.with_suffix(".jpg")
        picture.convert("CMYK").save(path)
    elif kind == "turned":
        path, size = path.with_suffix(".jpg"), (64, 48)
        exif = Image.Exif()
        exif[0x0112] = 6  # orientation: to be turned by 90 degrees
        picture.save(path, exif=exif)
    else:
        picture.convert("RGBA").save(path)
    explanation = assert_explained_as_detected(model, path)
    assert explanation.input.image.shape == (*size, 3)


# an image in which nothing is found, and what cannot be explained


def test_an_image_without_detections_has_a_page_that_says_why(looked, record, tmp_path):
    model, *_ = looked("rcnn")
    layer = model.detection_layer
    before, layer.score_threshold = layer.score_threshold, 1.0
    try:
        explanation = rk.visualize.explain(model, record.path)
    finally:
        layer.score_threshold = before
    assert len(explanation.detections) == 0
    assert explanation.training is None
    best = explanation.class_probabilities.max()
    assert f"the best score is {best:.3f}" in explanation.why_empty
    assert "score above 1" in explanation.why_empty
    explanation.save(tmp_path / "page.html")
    assert explanation.why_empty in (tmp_path / "page.html").read_text("utf-8")


def test_without_proposals_there_is_nothing_to_look_at(looked, record):
    model, *_ = looked("fast")
    explanation = rk.visualize.explain(model, record.path, proposals=[np.zeros((0, 4))])
    assert explanation.why_empty == "Nothing was detected: there are no proposals to look at."
    assert "no proposals" in explanation.html()


def test_a_detector_that_takes_proposals_is_given_selective_search(looked, record):
    model, *_ = looked("fast")
    explanation = rk.visualize.explain(model, record.path)
    assert len(explanation.proposals.boxes) > 5


def test_other_models_are_refused(record):
    message = "explain takes a detector of this package .*, not a Sequential"
    with pytest.raises(ValueError, match=message):
        rk.visualize.explain(keras.Sequential(), record.path)
    with pytest.raises(ValueError, match="not a str 'shapes'"):
        rk.visualize.explain("shapes", record.path)


def test_images_that_cannot_be_explained(looked, record, tmp_path):
    model, *_ = looked("faster")
    with pytest.raises(ValueError, match="explain takes one image, not 2"):
        rk.visualize.explain(model, [record.path, record.path])
    with pytest.raises(ValueError, match="explain takes one image, not 0"):
        rk.visualize.explain(model, [])
    (tmp_path / "cut.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"cut\.png: is not an image that Pillow can read"):
        rk.visualize.explain(model, tmp_path / "cut.png")
    with pytest.raises(ValueError, match="finds its own proposals"):
        rk.visualize.explain(model, record.path, proposals=[np.zeros((1, 4))])


def test_ground_truth_of_other_classes_or_without_masks_is_refused(looked, record):
    model, *_ = looked("mask")
    other = record.select(np.arange(len(record)), record.labels + 4)
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.3"):
        rk.visualize.explain(model, other)
    plain = replace(record, segmentations=None)
    with pytest.raises(ValueError, match=r"segmentation|mask"):
        rk.visualize.explain(model, plain)


def test_a_cascade_shows_the_boxes_and_losses_of_its_stages(looked):
    model, inputs, explanation, dataset = looked("cascade")
    (expected,) = model.detect(dataset)
    np.testing.assert_allclose(explanation.detections.boxes, expected.boxes, atol=1e-4)
    np.testing.assert_allclose(explanation.masks, expected.masks, atol=1e-4)
    extracted = model.extract_features(inputs, training=False)
    refined = model.refine_proposals(extracted)
    for path, roi in zip(explanation.paths, explanation.rois, strict=True):
        np.testing.assert_allclose(path.proposal, extracted["proposals"][0, roi.number], atol=1e-4)
        assert len(path.stages) == 2
        for found, boxes in zip(path.stages, refined["stage_boxes"], strict=True):
            np.testing.assert_allclose(found, boxes[0, roi.number], atol=1e-4)
        np.testing.assert_allclose(roi.box, refined["proposals"][0, roi.number], atol=1e-4)
    batch = next(iter(model._with_truth(dataset.batches(1)).tf_dataset()))
    losses = model.test_on_batch(*batch, return_dict=True)
    assert set(explanation.training.losses) == set(model.loss_names)
    for name, value in explanation.training.losses.items():
        np.testing.assert_allclose(value, float(losses[name]), rtol=1e-4, atol=1e-7)
    page = explanation.html()
    assert "after stage 2" in page
    assert "stage 3 box" in page
