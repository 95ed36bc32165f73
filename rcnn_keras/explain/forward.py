"""One forward pass of a detector with everything on its way kept.

The detector's own methods and layers run, in one graph, on the inputs that `detect` gives them;
what is between them is read where it passes by, and nothing is computed in another way.
"""

from collections.abc import Callable
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.image_rule import MatterportImageRule
from rcnn_keras.data.images import read_image
from rcnn_keras.data.inputs import Images, input_batches
from rcnn_keras.data.inputs import Proposals as GivenProposals
from rcnn_keras.data.pipeline import Batches
from rcnn_keras.explain.explanation import (
    Explanation,
    FeatureMap,
    Input,
    Path,
    Proposals,
    RoI,
    SampledAnchors,
    SampledRoIs,
    Suppression,
    Training,
)
from rcnn_keras.layers import RoIAlign, RoIPool
from rcnn_keras.layers.proposal_layer import MIN_LOGIT
from rcnn_keras.losses import (
    box_head_loss_terms,
    keypoint_head_loss_terms,
    mask_head_loss_terms,
    rpn_loss_terms,
)
from rcnn_keras.models import RCNN, Detector, FasterRCNN, KeypointRCNN
from rcnn_keras.models.batch import complete_inputs, complete_targets
from rcnn_keras.models.errors import check_process
from rcnn_keras.models.mask_branch import MaskBranch
from rcnn_keras.models.two_stage import TwoStageDetector
from rcnn_keras.ops import (
    iou,
    move_apart,
    pool_cells,
    roi_levels,
    sample_points,
    suppressors,
    take_rows,
    warp_regions,
)
from rcnn_keras.ops.types import Tensor
from rcnn_keras.proposals import selective_search

MAX_PROPOSALS = 2000  # of selective search, as in the papers
Arrays = dict[str, Any]  # nested, of arrays with a batch of one image


def explain(
    model: Detector, image: Images | Record, *, proposals: GivenProposals | None = None
) -> Explanation:
    """Detect in one image, and keep all that was computed on the way.

    Args:
        model: a detector of this package. One with portable kernels, too.
        image: one image, as `Detector.detect` takes it; or a `Record` with labels of the model's
            classes, whose ground truth is then explained, too: matches, samples and their losses.
        proposals: for R-CNN and Fast R-CNN, as `Detector.detect` takes them; default those of the
            record, and otherwise selective search, mode fast.

    Returns:
        The parts, as arrays and as pictures, and a page of all. It keeps the feature maps: 90 MB
        for ResNet-50 with a pyramid at 800 x 1333 pixels.

    Raises:
        ValueError: for a model of another kind, no image or several, proposals that do not fit, or
            ground truth that the model cannot train on.
        ImageError: for an image that cannot be read; names it.
    """
    if not isinstance(model, Detector):
        raise ValueError(
            "explain takes a detector of this package (RCNN, FastRCNN, FasterRCNN, MaskRCNN, "
            f"CascadeRCNN, KeypointRCNN), not {_kind(model)}"
        )
    if isinstance(model.image_rule, MatterportImageRule):
        raise ValueError(
            f"explain is not for {type(model).__name__}, whose images stand in the middle of a "
            f"canvas: its extract_features, predict_boxes and layers give what it computes"
        )
    check_process(model._process)
    dataset = _one_image(model, image, proposals)
    record = dataset[0]
    batches = Batches(dataset, 1, max_objects=dataset.max_objects)
    inputs = next(input_batches(model._sized(batches)))
    targets = None
    if isinstance(image, Record) and isinstance(model, TwoStageDetector):
        _, targets = next(iter(model._with_truth(batches).tf_dataset()))
    looked = keras.tree.map_structure(np.asarray, _looked_at(model, inputs, targets))
    return _explanation(model, record, inputs, looked, with_truth=isinstance(image, Record))


def _looked_at(model: Detector, inputs: Arrays, targets: Arrays | None) -> Arrays:
    """Run `_look` as `detect` runs the model: in a graph, or eagerly if it is compiled so."""
    inputs = {name: tf.convert_to_tensor(values) for name, values in inputs.items()}
    if model.run_eagerly:
        return _look(model, inputs, targets)
    # A concrete function: TensorFlow warns of the others, that they are traced for each image.
    return tf.function(lambda: _look(model, inputs, targets)).get_concrete_function()()


def _kind(model: Any) -> str:
    """Return what a thing is that should be a detector."""
    kind = type(model).__name__
    article = "an" if kind[0] in "AEIOU" else "a"
    return f"{article} {kind}" + (f" {model!r}" if isinstance(model, str) else "")


def _one_image(
    model: Detector, image: Images | Record, proposals: GivenProposals | None
) -> DetectionDataset:
    """Return a dataset of the one image, with proposals if the model takes them."""
    images = DetectionDataset([image], model.classes) if isinstance(image, Record) else image
    dataset = model.dataset_of(images, proposals)
    if len(dataset) != 1:
        raise ValueError(f"explain takes one image, not {len(dataset)}")
    if model.takes_proposals and dataset[0].proposals is None:
        dataset = model.dataset_of(dataset, _selective_search)
    return dataset


def _selective_search(image: np.ndarray) -> np.ndarray:
    return selective_search(image, mode="fast")[:MAX_PROPOSALS]


# In the graph: B is 1.


def _look(model: Detector, inputs: dict[str, Tensor], targets: dict[str, Tensor] | None) -> Arrays:
    """Run a detector on one image, and return all that passes by."""
    inputs = complete_inputs(inputs)
    extracted = model.extract_features(inputs, training=False)
    refined = model.refine_proposals(extracted)
    logits, deltas = model.predict_boxes(refined)
    rois, count, sizes = (refined[k] for k in ("proposals", "num_proposals", "image_sizes"))
    layer = model.detection_layer
    boxes, scores, classes = layer.candidates(logits, deltas, rois, count, sizes)
    kept, _ = layer.suppress(boxes, scores, classes)
    looked = {
        "detections": model.select_detections(refined, logits, deltas),
        "proposals": extracted["proposals"],
        "num_proposals": count,
        "probabilities": ops.sigmoid(logits) if layer.margins else ops.softmax(logits),
        "nms": _nms(boxes, scores, classes, kept),
    }
    number = kept // len(model.classes)  # the proposal that each detection was
    read = take_rows(rois, number)
    looked["read"] = read
    looked["stages"] = [take_rows(boxes, number) for boxes in refined.get("stage_boxes", ())]
    if isinstance(model, TwoStageDetector):
        maps = extracted["features"]
        looked |= {
            "padded_size": ops.shape(extracted["images"])[1:3],
            "features": [ops.cast(x, "float32") for x in maps],
            "pooled": ops.cast(model.box_pooling(maps, read), "float32"),
        }
    else:
        looked |= _look_at_crops(cast(RCNN, model), inputs, extracted, read, number)
    if _has_rpn(model):
        looked["rpn"] = _look_at_rpn(cast(FasterRCNN, model), extracted)
    if targets is not None:
        looked["training"] = _look_at_training(
            cast(TwoStageDetector, model), inputs, extracted, targets
        )
    return looked


def _has_rpn(model: Detector) -> bool:
    """Return whether the proposals are those of the model's own RPN."""
    return isinstance(model, FasterRCNN) and model.proposer is None


def _nms(boxes: Tensor, scores: Tensor, groups: Tensor, kept: Tensor) -> Arrays:
    """Return the candidates of NMS, also as it compares them, and those it kept."""
    apart = move_apart(boxes, groups)
    return {"boxes": boxes, "apart": apart, "scores": scores, "groups": groups, "kept": kept}


def _look_at_crops(
    model: RCNN, inputs: dict[str, Tensor], extracted: Arrays, read: Tensor, number: Tensor
) -> Arrays:
    """Return the crops of the regions that were detected, and their pool5."""
    sizes = extracted["image_sizes"]
    images = model.normalize(inputs["images"], sizes)
    image = ops.zeros(ops.shape(read)[1:2], "int32")
    side, context = model.region_features.crop_size, model.region_features.context
    crops = warp_regions(images, sizes, read[0], image, side, context)
    std, mean = model.normalize.std, model.normalize.mean
    pool5 = take_rows(extracted["pool5"], number)
    shape = model.network.output["pool5"].shape[1:]
    return {
        "crops": (crops * ops.array(std) + ops.array(mean))[None],
        "pooled": ops.reshape(pool5, (1, -1, *shape)),
    }


def _look_at_rpn(model: FasterRCNN, extracted: Arrays) -> Arrays:
    """Return anchors, objectness and the candidates before NMS."""
    logits, deltas, anchors = (extracted[k] for k in ("rpn_logits", "rpn_deltas", "anchors"))
    layer = model.proposal_layer
    boxes, scores, levels, places = layer.candidates(
        logits, deltas, anchors, extracted["image_sizes"]
    )
    kept, _ = layer.suppress(boxes, scores, levels)
    return {
        "anchors": anchors,
        "objectness": [ops.sigmoid(x) for x in logits],
        "nms": _nms(boxes, scores, levels, kept),
        "places": places,
    }


def _look_at_training(
    model: TwoStageDetector,
    inputs: dict[str, Tensor],
    extracted: Arrays,
    targets: dict[str, Tensor],
) -> Arrays:
    """Return matches, samples and the losses of each, as at evaluation."""
    targets = complete_targets(targets, *ops.shape(inputs["images"])[1:3])
    step = ops.zeros((), "int64")
    proposals, count, ids = (extracted[k] for k in ("proposals", "num_proposals", "image_ids"))
    sampled = model.roi_sampler(proposals, count, targets, ids, step)
    beta = model.get_config()["box_smooth_l1_beta"]
    stages = model.sampled_stages(extracted, targets, sampled, step, False)
    losses = {
        name + model.loss_suffix(number): (terms[0], of_stage[1])
        for number, (of_stage, predicted) in enumerate(stages)
        for name, terms in box_head_loss_terms(*predicted, beta).items()
    }
    looked = {
        "targets": {name: targets[name] for name in ("boxes", "labels", "crowd")},
        "overlaps": iou(targets["boxes"], proposals),
        "rois": sampled[0],
        "classes": sampled[1],
        "matches": sampled[3],
        "losses": losses,
    }
    if isinstance(model, MaskBranch) and model.has_masks:
        logits, masks, real = model.draw_sampled(extracted, targets, sampled, False)
        cells = logits.shape[1] * logits.shape[2]
        looked["mask_losses"] = mask_head_loss_terms(logits, masks, real) / cells
    if isinstance(model, KeypointRCNN):
        maps, cells, valid = model.look_at_sampled(extracted, targets, sampled, False)
        looked["keypoint_losses"] = ops.sum(keypoint_head_loss_terms(maps, cells, valid), axis=1)
        looked["num_keypoints"] = ops.sum(ops.cast(valid, "int32"))
    if _has_rpn(model):
        looked["rpn"] = _look_at_rpn_training(cast(FasterRCNN, model), extracted, targets, step)
    return looked


def _look_at_rpn_training(
    model: FasterRCNN, extracted: Arrays, targets: dict[str, Tensor], step: Tensor
) -> Arrays:
    anchors = ops.concatenate(extracted["anchors"])
    matches, labels = model.anchor_sampler.match(anchors, targets, extracted["image_sizes"])
    drawn = model.sample_anchors(extracted, targets, step)
    indices, sampled = drawn[0], drawn[1:]
    return {
        "matches": matches,
        "match_labels": labels,
        "boxes": ops.take(anchors, indices[0], axis=0)[None],
        "labels": sampled[-1],
        "losses": rpn_loss_terms(*sampled, model.get_config()["rpn_smooth_l1_beta"]),
    }


# From padded arrays to the parts of an explanation.


def _explanation(
    model: Detector, record: Record, inputs: Arrays, looked: Arrays, *, with_truth: bool
) -> Explanation:
    found = {name: values[0] for name, values in looked["detections"].items()}
    count = int(found["num_detections"])
    layer = model.detection_layer
    suppressed = _suppression(
        looked["nms"], count, layer.score_threshold, layer.nms_thresh, layer.max_detections
    )
    features = _feature_maps(looked)
    rpn = looked.get("rpn")
    proposals = _proposals(model, looked, record)
    rois = _rois(model, looked, features, count)
    paths = tuple(
        Path(
            None if proposals.anchors is None else proposals.anchors[roi.number],
            proposals.boxes[roi.number],
            found["boxes"][i],
            None if proposals.levels is None else int(proposals.levels[roi.number]),
            None if proposals.scores is None else float(proposals.scores[roi.number]),
            int(found["labels"][i]),
            float(found["scores"][i]),
            int(suppressed.kept[i]),
            tuple(boxes[0, i] for boxes in looked["stages"]),
        )
        for i, roi in enumerate(rois)
    )
    height, width = inputs["image_sizes"][0].tolist()
    pixels = inputs["images"][0]
    padded = looked.get("padded_size", pixels.shape[:2])
    return Explanation(
        architecture=type(model).__name__,
        name=record.path,
        classes=model.classes,
        detections=model._in_given_pixels(found, record),
        input=Input(
            read_image(record.image, model.value_range),
            pixels,
            (height, width),
            (int(padded[0]), int(padded[1])),
        ),
        features=features,
        anchors=() if rpn is None else tuple(rpn["anchors"]),
        objectness=() if rpn is None else tuple(_maps_of(rpn["objectness"], features)),
        proposals=proposals,
        rois=rois,
        probabilities=looked["probabilities"][0, : len(proposals.boxes)],
        paths=paths,
        suppressed=suppressed,
        masks=found["masks"][:count] if model.has_masks else None,
        training=_training(looked, record, proposals, inputs) if with_truth else None,
        score_threshold=float(layer.score_threshold),
    )


def _feature_maps(looked: Arrays) -> tuple[FeatureMap, ...]:
    return tuple(
        FeatureMap(values[0], int(looked["padded_size"][0]) // values.shape[1])
        for values in looked.get("features", ())
    )


def _maps_of(objectness: list[np.ndarray], features: tuple[FeatureMap, ...]) -> list[np.ndarray]:
    """Return objectness by position: anchors are listed row by row, k at each position."""
    return [
        values[0].reshape(*level.values.shape[:2], -1)
        for values, level in zip(objectness, features, strict=True)
    ]


def _suppression(
    nms: Arrays,
    count: int,
    least: float,
    iou_threshold: float,
    limit: int,
    probability: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> Suppression:
    """Return the candidates that score more than `least`, the best first."""
    boxes, apart, scores = (nms[name][0] for name in ("boxes", "apart", "scores"))
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > least]
    place = np.full(len(scores), -1, np.int32)
    place[order] = np.arange(len(order))
    kept = place[nms["kept"][0, :count]]
    by, overlaps = suppressors(apart[order], scores[order], kept, iou_threshold)
    return Suppression(
        boxes[order],
        probability(scores[order]),
        np.asarray(nms["groups"], np.int32)[order],
        by,
        overlaps,
        kept,
        float(iou_threshold),
        int(limit),
    )


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.asarray(ops.sigmoid(logits))


def _proposals(model: Detector, looked: Arrays, record: Record) -> Proposals:
    count = int(looked["num_proposals"][0])
    boxes = looked["proposals"][0, :count]
    if "rpn" not in looked:
        return Proposals(boxes, "given beforehand")
    rpn, layer = looked["rpn"], cast(FasterRCNN, model).proposal_layer
    suppression = _suppression(
        rpn["nms"], count, MIN_LOGIT, layer.nms_thresh, layer.post_nms_top_n[1], _sigmoid
    )
    kept = rpn["nms"]["kept"][0, :count]
    levels = np.asarray(rpn["nms"]["groups"], np.int32)[kept]
    places = rpn["places"][0][kept]
    anchors = [rpn["anchors"][level][place] for level, place in zip(levels, places, strict=True)]
    return Proposals(
        boxes,
        "the region proposal network",
        suppression.scores[suppression.kept],
        levels,
        np.asarray(anchors, np.float32).reshape(-1, 4),
        suppression,
    )


def _rois(
    model: Detector,
    looked: Arrays,
    features: tuple[FeatureMap, ...],
    count: int,
) -> tuple[RoI, ...]:
    numbers = looked["nms"]["kept"][0, :count] // len(model.classes)
    rois = []
    for i, number in enumerate(numbers.tolist()):
        box, pooled = looked["read"][0, i], looked["pooled"][0, i]
        if isinstance(model, TwoStageDetector):
            rois.append(where_read(model.box_pooling, number, box, pooled, features))
        else:
            crop = np.clip(np.rint(looked["crops"][0, i]), 0, 255).astype(np.uint8)
            rois.append(RoI(number, box, pooled, "crop", crop=crop))
    return tuple(rois)


def where_read(
    pooling: keras.layers.Layer,
    number: int,
    box: np.ndarray,
    pooled: np.ndarray,
    features: tuple[FeatureMap, ...],
) -> RoI:
    """Return where a pooling layer reads a RoI, as far as the package knows the layer."""
    if isinstance(pooling, RoIAlign):
        scales = [1 / stride for stride in pooling.strides]
        level = int(roi_levels(box, scales)) if len(scales) > 1 else 0
        how = (pooling.pooled_size, pooling.sampling_ratio, pooling.aligned)
        rows, columns = sample_points(box, scales[level], *how)
        offset = 0.5 if pooling.aligned else 0.0
        return RoI(number, box, pooled, "RoIAlign", level, rows.numpy(), columns.numpy(), offset)
    if isinstance(pooling, RoIPool):
        size = np.array(features[0].values.shape[:2], np.int32)
        cells = pool_cells(box[None], size, pooling.pooled_size, 1 / pooling.stride)
        rows, columns = (np.stack([first[0], last[0]], axis=1) for first, last in cells)
        return RoI(number, box, pooled, "RoIPool", 0, rows, columns)
    return RoI(number, box, pooled, type(pooling).__name__)


def _training(
    looked: Arrays, record: Record, proposals: Proposals, inputs: Arrays
) -> Training | None:
    if "training" not in looked:  # R-CNN: no common loss, and images keep their size
        overlaps = _best_overlaps(np.asarray(iou(record.boxes, proposals.boxes)))
        return Training(record.boxes, record.labels, record.crowd, overlaps, {})
    of = looked["training"]
    targets = {name: values[0] for name, values in of["targets"].items()}
    real = targets["labels"] >= 0
    sampled = of["classes"][0] >= 0
    losses: dict[str, np.ndarray] = {}
    counts: dict[str, Any] = {}
    for name, (terms, classes) in of["losses"].items():  # a cascade leaves out RoIs on its way
        trained = classes[0] >= 0
        losses[name], counts[name] = _spread(terms, trained), int(trained.sum())
    if "mask_losses" in of:
        losses["mask_loss"] = _spread(of["mask_losses"], of["classes"][0] > 0)
    if "keypoint_losses" in of:
        losses["keypoint_loss"] = _spread(of["keypoint_losses"], of["classes"][0] > 0)
    anchors = _sampled_anchors(of.get("rpn"))
    rois = SampledRoIs(
        of["rois"][0][sampled],
        of["classes"][0][sampled],
        of["matches"][0][sampled],
        {name: terms[sampled] for name, terms in losses.items()},
    )
    means = {} if anchors is None else {k: _mean(x, len(x)) for k, x in anchors.losses.items()}
    counts |= {"mask_loss": (rois.classes > 0).sum(), "keypoint_loss": of.get("num_keypoints")}
    for name, terms in rois.losses.items():
        means[name] = _mean(terms, int(counts[name]))
    return Training(
        targets["boxes"][real],
        targets["labels"][real],
        targets["crowd"][real],
        _best_overlaps(of["overlaps"][0][real, : len(proposals.boxes)]),
        means,
        anchors,
        rois,
    )


def _best_overlaps(overlaps: np.ndarray) -> np.ndarray:
    return overlaps.max(axis=1, initial=0).astype(np.float32)


def _mean(terms: np.ndarray, count: int) -> float:
    return float(terms.sum(dtype=np.float64) / max(count, 1))


def _spread(terms: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return `(S,)` terms of listed RoIs: of the real ones alone, or of the first with padding."""
    values = np.zeros(len(real), np.float32)
    if len(terms) in (int(real.sum()), 1):  # at least one is listed, whether it is real or not
        values[real] = terms[: int(real.sum())]
    else:
        values[: len(terms)] = terms
    return values


def _sampled_anchors(of: Arrays | None) -> SampledAnchors | None:
    if of is None:
        return None
    real = of["labels"][0] >= 0
    return SampledAnchors(
        of["match_labels"][0],
        of["matches"][0],
        of["boxes"][0][real],
        of["labels"][0][real],
        {name: terms[0][real] for name, terms in of["losses"].items()},
    )
