"""An explanation as one HTML page that needs no other file and no network."""

import base64
import io
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rcnn_keras.explain.explanation import Explanation, Suppression
from rcnn_keras.explain.pictures import PROPOSAL, WIDTH, Canvas, class_bars, window_around
from rcnn_keras.visualize import draw

MAX_DETECTIONS = 12  # that have a part of their own
MAX_ROIS = 10  # whose class probabilities are shown
MAX_CANDIDATES = 300  # of NMS step by step
MAX_SAMPLES = 24  # of training, those of the greatest losses
TOP = 50  # proposals in a picture
MAX_SIDE = 1024  # pixels of the picture of all detections
THUMBNAIL = 96  # pixels
QUALITY = 82  # of WebP
LOSSES = {
    "rpn_objectness_loss": "objectness",
    "rpn_box_loss": "anchor's box",
    "class_loss": "class",
    "box_loss": "box",
    "mask_loss": "mask",
    "keypoint_loss": "keypoints",
}


def page_of(explanation: Explanation) -> str:
    """Return the page; see `Explanation.html`."""
    from jinja2 import Environment, StrictUndefined

    source = resources.files("rcnn_keras.explain").joinpath("page.html.j2")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    resized = explanation.input.resized
    return environment.from_string(source.read_text("utf-8")).render(
        title=f"{Path(explanation.name).name} inside a {explanation.architecture}",
        e=explanation,
        found=_detections(explanation),
        why=explanation.why_empty,
        input=_figure(explanation.draw_input(), "The image as given and as the network reads it"),
        given_size=explanation.input.image.shape[1::-1],
        levels=_levels(explanation),
        proposals=_proposals(explanation),
        rois=_probabilities(explanation),
        parts=[_part(explanation, i) for i in range(min(len(explanation.paths), MAX_DETECTIONS))],
        training=_training(explanation),
        nms=_steps(explanation),
        ground=_figure(Canvas(resized).picture, "The network's input"),
        names=LOSSES,
    )


def _figure(picture: Image.Image, text: str) -> dict[str, Any]:
    """Return a picture as the page holds it, and the words that stand for it."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return {
        "source": f"data:image/webp;base64,{data}",
        "text": text,
        "width": picture.width,
        "height": picture.height,
    }


def _detections(explanation: Explanation) -> dict[str, Any]:
    """Return the picture and the table of what `detect` returns."""
    found = explanation.detections
    rows = [
        {"name": name, "score": f"{score:.3f}", "box": [f"{x:.1f}" for x in box.tolist()]}
        for name, score, box in zip(found.class_names, found.scores, found.boxes, strict=True)
    ]
    zoom = max(WIDTH // max(found.image_size), 1)
    picture = draw(explanation.input.image, found, min_score=0, zoom=zoom)
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return {"rows": rows, "figure": _figure(picture, found.summary()), "summary": found.summary()}


def _levels(explanation: Explanation) -> list[dict[str, Any]]:
    """Return what there is to show of each feature map."""
    levels = []
    for i, features in enumerate(explanation.features):
        height, width, channels = features.values.shape
        level: dict[str, Any] = {
            "stride": features.stride,
            "size": f"{height} x {width} positions, {channels} channels",
            "features": _figure(
                explanation.draw_features(i), f"Feature maps of stride {features.stride}"
            ),
        }
        if explanation.anchors:
            objectness = explanation.objectness[i]
            level |= {
                "count": len(explanation.anchors[i]),
                "each": objectness.shape[-1],
                "best": f"{objectness.max(initial=0):.3f}",
                "anchors": _figure(
                    explanation.draw_anchors(i), f"Anchors on the map of stride {features.stride}"
                ),
                "objectness": _figure(
                    explanation.draw_objectness(i), f"Objectness at stride {features.stride}"
                ),
            }
        levels.append(level)
    return levels


def _proposals(explanation: Explanation) -> dict[str, Any]:
    proposals = explanation.proposals
    after = _figure(explanation.draw_proposals(TOP), f"The {TOP} best proposals")
    found = {"count": len(proposals.boxes), "after": after, "before": None, "top": TOP}
    if proposals.suppression is not None:
        found["candidates"] = len(proposals.suppression.boxes)
        found["before"] = _figure(
            explanation.draw_proposals(TOP, before_nms=True), f"The {TOP} best before NMS"
        )
    return found


def _probabilities(explanation: Explanation) -> list[dict[str, Any]]:
    rows = []
    for number in explanation.top_rois[:MAX_ROIS].tolist():
        box = explanation.proposals.boxes[number]
        crop = Canvas(explanation.input.resized, window_around(explanation, box), width=THUMBNAIL)
        crop.box(box, PROPOSAL, width=2)
        bars = [
            {"name": name, "value": f"{value:.3f}", "percent": round(100 * value, 1)}
            for name, value in class_bars(explanation, number, 3)
        ]
        figure = _figure(crop.picture, f"Proposal {number + 1}")
        rows.append({"number": number + 1, "figure": figure, "bars": bars})
    return rows


def _part(explanation: Explanation, detection: int) -> dict[str, Any]:
    """Return all about one detection."""
    path, roi = explanation.paths[detection], explanation.rois[detection]
    name = explanation.classes[path.label]
    stages = [(f"after stage {number}", box) for number, box in enumerate(path.stages, 1)]
    steps = [("anchor", path.anchor), ("proposal", path.proposal), *stages, ("final box", path.box)]
    suppressed = explanation.suppressed
    removed = suppressed.removed_by(path.candidate)
    figures = {
        "path": _figure(explanation.draw_path(detection), f"{name}: anchor, proposal, box"),
        "roi": _figure(explanation.draw_roi(detection), f"{name}: where it was read"),
    }
    if len(removed):
        text = f"{name}: what NMS removed because of it"
        figures["suppressed"] = _figure(explanation.draw_suppressed(detection), text)
    if explanation.masks is not None:
        figures["mask"] = _figure(explanation.draw_mask(detection), f"{name}: its mask")
    return {
        "name": name,
        "score": f"{path.score:.3f}",
        "objectness": None if path.objectness is None else f"{path.objectness:.3f}",
        "proposal": roi.number + 1,
        "level": None if path.level is None else explanation.features[path.level].stride,
        "steps": [(n, [f"{x:.1f}" for x in box.tolist()]) for n, box in steps if box is not None],
        "read": _read(explanation, detection),
        "removed": [
            (f"{suppressed.scores[i]:.3f}", f"{suppressed.overlaps[i]:.2f}") for i in removed[:10]
        ],
        "removed_count": len(removed),
        "figures": figures,
    }


def _read(explanation: Explanation, detection: int) -> str:
    """Return where a detection was read, in a sentence."""
    roi = explanation.rois[detection]
    size = " x ".join(map(str, roi.pooled.shape))
    if roi.crop is not None:
        side = len(roi.crop)
        return f"The region is warped to {side} x {side} pixels; its pool5 is {size}."
    if roi.level is None or roi.rows is None or roi.columns is None:
        return f"{roi.kind} pools {size}; where it reads is not known."
    stride = explanation.features[roi.level].stride
    if roi.rows.ndim == 2:
        return f"{roi.kind} takes the maximum of each cell of the map of stride {stride}: {size}."
    samples = f"{len(roi.rows)} x {len(roi.columns)} samples"
    off = "" if roi.offset else " Without roi_aligned, positions are read half a stride further on."
    return f"{roi.kind} reads {samples} of the map of stride {stride}, and pools {size}.{off}"


def _steps(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the data of NMS step by step, at most `MAX_CANDIDATES` of the best candidates."""
    stages = []
    if explanation.proposals.suppression is not None:
        names = [f"stride {features.stride}" for features in explanation.features]
        stages.append(("proposals", "level", explanation.proposals.suppression, names))
    stages.append(("detections", "class", explanation.suppressed, list(explanation.classes)))
    return [
        {
            "id": f"nms-{name}",
            "title": f"NMS of {name}, step by step",
            "group": group,
            "threshold": suppression.iou_threshold,
            "limit": suppression.limit,
            "count": len(suppression.boxes),
            "shown": min(len(suppression.boxes), MAX_CANDIDATES),
            "kept": len(suppression.kept),
            "data": _candidates(suppression, names),
        }
        for name, group, suppression, names in stages
        if len(suppression.boxes)
    ]


def _candidates(suppression: Suppression, names: list[str]) -> dict[str, Any]:
    shown = slice(0, MAX_CANDIDATES)
    return {
        "boxes": np.round(suppression.boxes[shown].astype(float), 1).tolist(),
        "scores": np.round(suppression.scores[shown].astype(float), 3).tolist(),
        "by": suppression.by[shown].tolist(),
        "overlaps": np.round(suppression.overlaps[shown].astype(float), 2).tolist(),
        "names": [names[group] for group in suppression.groups[shown]],
    }


def _training(explanation: Explanation) -> dict[str, Any] | None:
    training = explanation.training
    if training is None:
        return None
    objects = [
        {
            "name": explanation.classes[label] + (" (crowd)" if crowd else ""),
            "overlap": f"{overlap:.2f}",
            "anchors": None,
        }
        for label, crowd, overlap in zip(
            training.labels, training.crowd, training.best_overlaps, strict=True
        )
    ]
    found: dict[str, Any] = {
        "objects": objects,
        "losses": [(loss_title(n), f"{value:.4f}") for n, value in training.losses.items()],
        "matches": _figure(explanation.draw_matches(), "Objects and what matches them"),
        "anchors": None,
        "samples": None,
    }
    if training.anchors is not None:
        labels = training.anchors.match_labels
        positive = training.anchors.matches[labels == 1]
        for i, row in enumerate(objects):
            row["anchors"] = str(int((positive == i).sum()))
        found["anchors"] = {
            "positive": int((labels == 1).sum()),
            "negative": int((labels == 0).sum()),
            "neither": int((labels == -1).sum()),
            "sampled": len(training.anchors.labels),
            "sampled_positive": int(training.anchors.labels.sum()),
        }
    if training.rois is not None:
        found["samples"] = _samples(explanation)
    return found


def _samples(explanation: Explanation) -> dict[str, Any]:
    """Return the sampled RoIs, in a table those of the greatest losses."""
    assert explanation.training is not None
    rois = explanation.training.rois
    assert rois is not None
    total = np.sum(list(rois.losses.values()), axis=0)
    rows = [
        {
            "name": explanation.classes[rois.classes[i] - 1] if rois.classes[i] else "background",
            "box": [f"{x:.0f}" for x in rois.boxes[i].tolist()],
            "losses": [f"{terms[i]:.3f}" for terms in rois.losses.values()],
        }
        for i in np.argsort(-total, kind="stable")[:MAX_SAMPLES].tolist()
    ]
    return {
        "figure": _figure(explanation.draw_samples(), "The sampled RoIs"),
        "rows": rows,
        "count": len(rois.classes),
        "objects": int((rois.classes > 0).sum()),
        "columns": [loss_title(name) for name in rois.losses],
    }


def loss_title(name: str) -> str:
    """Return what the page calls a loss: `class_loss_2` is that of classes in stage 2."""
    kind, _, stage = name.rpartition("_")
    return f"stage {stage} {LOSSES[kind]}" if stage.isdecimal() else LOSSES[name]
