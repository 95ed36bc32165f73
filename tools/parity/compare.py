"""Run our models on the cases of the comparison, and measure how far they are from torchvision."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from cases import LITE_CHANNELS, SAMPLES, Case, drawn_objects, sampled
from numpy.typing import NDArray

import rcnn_keras as rk
from rcnn_keras.convert.backbone_weights import efficientnet_lite_targets
from rcnn_keras.convert.torchvision import BODY, detector_targets
from rcnn_keras.convert.weights import WeightTarget, assign_weights
from rcnn_keras.data.inputs import unlabelled

FEATURES = 1e-4  # of the largest feature, logit or delta of a map
BOXES = 0.05  # pixels
SCORES = 1e-4
MASKS = 1e-3
KEYPOINTS = 0.1  # pixels
SURE = 1e-4  # of a heat map's logits: by so much the best pixel of a keypoint has to be better
LOSSES = 1e-4  # of the loss
GRADIENTS = 1e-3  # of a tensor's norm, or twice the distance of torchvision's two precisions
# Of detections.
STAGES = {"boxes": BOXES, "scores": SCORES, "labels": 0, "masks": MASKS, "keypoints": KEYPOINTS}
NEAR_TIE = 1e-5  # scores this close on either side may change places
OUR_LOSSES = {
    "loss_objectness": "rpn_objectness_loss",
    "loss_rpn_box_reg": "rpn_box_loss",
    "loss_classifier": "class_loss",
    "loss_box_reg": "box_loss",
    "loss_mask": "mask_loss",
    "loss_keypoint": "keypoint_loss",
}


@dataclass(frozen=True)
class Row:
    """One line of the table: the worst error of a stage, and how much is allowed."""

    case: str
    stage: str
    error: float
    allowed: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within what is allowed; NaN is not."""
        return self.error <= self.allowed


def build(case: Case, state: dict[str, NDArray]):
    """Return our model of a case with the weights of a torchvision state dict."""
    arguments = dict(case.arguments)
    if case.objects is not None:  # every anchor and RoI is a sample
        anchors = 4 * max(h for h, _ in case.sizes) * max(w for _, w in case.sizes) // 16
        arguments |= {
            "norm": "frozen_batch",
            "frozen_stages": 0,
            "rpn_batch_size_per_image": anchors,
            "rpn_positive_fraction": 1.0,
            "box_batch_size_per_image": arguments["rpn_post_nms_top_n_train"] + max(case.objects),
            "box_positive_fraction": 1.0,
        }
    if not case.lite:
        return rk.convert.torchvision.load(case.model, state, **arguments)
    detector = rk.models.MaskRCNN if case.model.startswith("mask") else rk.models.FasterRCNN
    arguments = {"norm": "frozen_batch"} | arguments
    model = detector(
        "efficientnet_lite0_fpn", num_classes=90, fpn_channels=LITE_CHANNELS, **arguments
    )
    assign_weights(targets_of(model), state, case.name)
    return model


def targets_of(model) -> dict[str, WeightTarget]:
    """Return the targets of a detector's weights by the tensor names of the other side."""
    targets = detector_targets(model)
    if model.get_config()["backbone"] == "efficientnet_lite0_fpn":
        targets = {name: t for name, t in targets.items() if not name.startswith(BODY)}
        network = efficientnet_lite_targets(model.backbone, 0)
        targets |= {BODY + name: target for name, target in network.items()}
    return targets


def forward(case: Case, model, drawing, theirs) -> list[Row]:
    """Compare every stage at inference."""
    images = [drawing.seeded_image(*size, case.seed + k) for k, size in enumerate(case.sizes)]
    batches = rk.data.Batches(unlabelled(images, model.classes), len(images))
    inputs, _ = next(iter(batches.sized(model.min_size, model.max_size).tf_dataset()))
    first = model.extract_features(inputs, training=False)
    levels = range(len(first["features"]))

    def row(stage, error, allowed, note=""):
        return Row(case.name, stage, float(error), allowed, note)

    def worst(stage, ours, key):
        return row(stage, max(_relative(x, theirs[f"{key}{k}"]) for k, x in ours), FEATURES)

    normal = model.normalize(inputs["images"], inputs["image_sizes"])
    rows = [row("images", _relative(normal, theirs["images"]), FEATURES)]
    rows += [worst(f"features {k}", [(k, first["features"][k])], "features") for k in levels]
    rows.append(worst("RPN logits", enumerate(first["rpn_logits"]), "logits"))
    rows.append(worst("RPN deltas", enumerate(first["rpn_deltas"]), "deltas"))
    anchors = np.concatenate(first["anchors"])
    rows.append(row("anchors", _distance(anchors, theirs["anchors"]), BOXES))

    found = model.detect(images, batch_size=len(images))
    for k, detections in enumerate(found):
        count = int(first["num_proposals"][k])
        proposals = {"boxes": np.asarray(first["proposals"][k, :count])}
        expected = {"boxes": theirs[f"proposals{k}"], "scores": theirs[f"proposal_scores{k}"]}
        order, note = _matched(proposals, expected)
        boxes = proposals["boxes"][order]
        error = _distance(boxes, expected["boxes"][: len(boxes)])
        rows.append(row(f"proposals {k}", error, BOXES, note))

        ours = {name: getattr(detections, name) for name in STAGES}
        expected = {name: theirs.get(f"{name}{k}") for name in ours}
        order, note = _matched(ours, expected)
        for name, allowed in STAGES.items():
            if expected[name] is not None:
                # Of the masks kept with the tests only some values are there, not rows.
                rows_kept = expected[name].ndim == ours[name].ndim
                wanted = expected[name][: len(order)] if rows_kept else expected[name]
                chosen = ours[name][order]
                if name == "keypoints":  # those whose best pixel rounding does not change
                    sure = theirs[f"keypoint_margins{k}"][: len(order), :, None] > SURE
                    chosen, wanted = np.where(sure, chosen, 0), np.where(sure, wanted, 0)
                error = _distance(chosen, wanted)
                rows.append(row(f"{name} {k}", error, allowed, note if name == "boxes" else ""))
    return rows


def training(case: Case, model, drawing, theirs) -> list[Row]:
    """Compare the losses over all samples, and the gradient of every trained tensor."""
    losses, gradients = losses_and_gradients(case, model, drawing)
    rows = []
    for name, ours in losses.items():
        expected = float(theirs[f"loss/{name}"])
        error = abs(ours - expected) / max(abs(expected), 1e-12)
        rows.append(Row(case.name, name, error, LOSSES))
    slots, errors = targets_of(model), {}
    for name, gradient in gradients.items():
        expected = slots[name].arrange(theirs[f"gradient/{name}"])
        norm, difference = np.linalg.norm(expected), np.linalg.norm(gradient - expected)
        errors[name] = difference / norm if norm > 0 else difference
    worst = max(errors, key=errors.get)
    note = f"{worst}; torchvision's float32 from its float64: {float(theirs['floor']):.0e}"
    allowed = allowed_gradient(theirs)
    rows.append(Row(case.name, f"{len(errors)} gradients", float(errors[worst]), allowed, note))
    return rows


def losses_and_gradients(case: Case, model, drawing):
    """Return our losses and the gradients of trained tensors, by torchvision's names."""
    inputs, targets = _training_batch(case, drawing, model)
    model.compile("sgd")
    with tf.GradientTape() as tape:
        first = model(inputs, training=True)
        total = model.compute_loss(inputs, targets, first, training=True)
    trained = {id(variable) for variable in model.trainable_variables}
    variables = {
        name: slot.variable.value
        for name, slot in targets_of(model).items()
        if id(slot.variable) in trained
    }
    gradients = tape.gradient(total, variables)
    losses = {
        theirs: float(model.loss_trackers[ours].result())
        for theirs, ours in OUR_LOSSES.items()
        if ours in model.loss_trackers
    }
    return losses, {name: np.asarray(gradient) for name, gradient in gradients.items()}


def allowed_gradient(theirs) -> float:
    """Return the allowed error: a ReLU near zero may open on one side alone in float32."""
    return max(GRADIENTS, 2 * float(theirs["floor"]))


def _training_batch(case, drawing, model):
    """Return inputs and targets, images and objects padded to the largest."""
    height, width = (-(-max(side) // 32) * 32 for side in zip(*case.sizes, strict=True))
    count, batch = max(case.objects), len(case.sizes)
    images = np.zeros((batch, height, width, 3), np.float32)
    targets = {
        "boxes": np.zeros((batch, count, 4), np.float32),
        "labels": np.full((batch, count), -1, np.int32),
    }
    if model.has_masks:
        targets["masks"] = np.zeros((batch, count, height, width), np.uint8)
    if model.skeleton is not None:
        targets["keypoints"] = np.zeros((batch, count, len(model.skeleton), 3), np.float32)
    for k, size in enumerate(case.sizes):
        inside = np.s_[k, : size[0], : size[1]]
        images[inside] = drawing.seeded_image(*size, case.seed + k)
        truth = drawn_objects(case, k)
        number = len(truth["labels"])
        targets["boxes"][k, :number] = truth["boxes"]
        targets["labels"][k, :number] = truth["labels"]
        if model.skeleton is not None:
            targets["keypoints"][k, :number] = truth["keypoints"]
        if model.has_masks:
            targets["masks"][k, :number, : size[0], : size[1]] = truth["masks"]
    sizes = np.array(case.sizes, np.int32)
    inputs = {"images": images, "image_sizes": sizes, "image_ids": np.arange(batch)}
    return _tensors(inputs), _tensors(targets)


def _tensors(arrays):
    return {name: tf.constant(array) for name, array in arrays.items()}


def _matched(ours, expected):
    """Return an order of our rows in which near ties stand as theirs do, and a note on it.

    Rows tie whose scores do so on either side: with both sides' rounding, a gap of theirs a little
    above the limit may be none of ours. The order is shorter where a tie at the end of the list was
    broken otherwise than theirs.
    """
    count, wanted = len(ours["boxes"]), len(expected["boxes"])
    order, scores, turned = np.arange(count), expected["scores"], 0
    gaps = [scores, ours.get("scores", scores)]
    for k in range(min(count, wanted)):
        tied = [
            j
            for j in range(k, min(count, wanted))
            if min(abs(side[k] - side[j]) for side in gaps) <= NEAR_TIE
        ]
        best = min(tied, key=lambda j: _cost(ours, expected, order[j], k))
        if _cost(ours, expected, order[best], k) < _cost(ours, expected, order[k], k):
            order[[k, best]] = order[[best, k]]
            turned += 1
    kept = wanted
    while 0 < kept <= count and scores[kept - 1] - scores[-1] <= NEAR_TIE:
        if _cost(ours, expected, order[kept - 1], kept - 1) <= BOXES:
            break
        kept -= 1  # of rows that tie with the last, either may be beyond the cut
    if kept < wanted / 2:
        raise ValueError(f"{wanted - kept} of {wanted} rows tie with the last: too few to compare")
    note = f"{count}" if count == wanted else f"{count} for {wanted}"
    note += f", {turned} ties turned" if turned else ""
    note += f", {wanted - kept} ties cut off" if kept < wanted else ""
    return (order[:kept] if count == wanted else order), note


def _cost(ours, expected, row, k):
    """Return how ill one of our rows fits one of theirs."""
    cost = np.abs(ours["boxes"][row] - expected["boxes"][k]).max()
    return cost + (1e6 * (ours["labels"][row] != expected["labels"][k]) if "labels" in ours else 0)


def _distance(ours, expected):
    """Return the largest difference, infinite where the shapes differ."""
    if expected.shape == (SAMPLES,) != ours.shape:
        ours = sampled(ours)
    return _largest(ours - expected) if ours.shape == expected.shape else np.inf


def _largest(x):
    return np.abs(x).max(initial=0)


def _relative(ours, expected):
    ours = np.asarray(ours)
    return _distance(ours, expected) / _largest(expected)
