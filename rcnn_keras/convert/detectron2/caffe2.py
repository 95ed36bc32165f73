"""The tensors' names in Caffe2's weight files, and what they are called in Detectron2.

Caffe2 is the format of the first Detectron and of the backbones that it was trained from. Its
backbones have batch norm as a gain and a shift, in which the statistics are.
"""

import re
from collections.abc import Mapping

import numpy as np

from rcnn_keras.layers.normalization import EPSILON

# In this order, on names whose "_" became ".".
RENAMED = (
    (r"\.b$", ".bias"),
    (r"\.w$", ".weight"),
    (r"bn\.(s|gamma)$", "norm.weight"),
    (r"bn\.(bias|beta)$", "norm.bias"),
    (r"bn\.(rm|running\.mean)$", "norm.running_mean"),
    (r"bn\.(riv|running\.var)$", "norm.running_var"),
    (r"gn\.s$", "norm.weight"),
    (r"gn\.bias$", "norm.bias"),
    (r"^res\.conv1\.norm\.", "conv1.norm."),
    (r"^conv1\.", "stem.conv1."),
    (r"\.branch1\.", ".shortcut."),
    (r"\.branch2a\.", ".conv1."),
    (r"\.branch2b\.", ".conv2."),
    (r"\.branch2c\.", ".conv3."),
    (r"^conv\.rpn(\.fpn2)?\.", "proposal_generator.rpn_head.conv."),
    (r"^rpn\.bbox\.pred(\.fpn2)?\.", "proposal_generator.rpn_head.anchor_deltas."),
    (r"^rpn\.cls\.logits(\.fpn2)?\.", "proposal_generator.rpn_head.objectness_logits."),
    (r"^bbox\.pred\.", "roi_heads.box_predictor.bbox_pred."),
    (r"^cls\.score\.", "roi_heads.box_predictor.cls_score."),
    (r"^fc6\.", "roi_heads.box_head.fc1."),
    (r"^fc7\.", "roi_heads.box_head.fc2."),
    (r"^head\.conv", "roi_heads.box_head.conv"),
    (r"^fpn\.inner\.res(\d)\.\d+\.sum\.lateral\.", r"backbone.fpn_lateral\1."),
    (r"^fpn\.inner\.res(\d)\.\d+\.sum\.", r"backbone.fpn_lateral\1."),
    (r"^fpn\.res(\d)\.\d+\.sum\.", r"backbone.fpn_output\1."),
    (r"^\.?\[?mask\]?\.fcn(\d)", r"roi_heads.mask_head.mask_fcn\1"),
    (r"^mask\.fcn\.logits\.", "roi_heads.mask_head.predictor."),
    (r"^conv5\.mask\.", "roi_heads.mask_head.deconv."),
    (r"^conv\.fcn", "roi_heads.keypoint_head.conv_fcn"),
    (r"^kps\.score\.lowres\.", "roi_heads.keypoint_head.score_lowres."),
)

CLASSIFIER = ("fc1000.", "pred.")  # after the renaming, of a backbone's ImageNet training

NETWORK = re.compile(r"^(stem|res[2-5])\.")


def renamed_from_caffe2(blobs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors of a Caffe2 file by Detectron2's names.

    The background's boxes and masks are left out, and its scores are moved behind the classes', as
    Detectron2 has them. Statistics are added where a norm has none: a mean of 0, and the
    variance that is 1 with Detectron2's epsilon.

    Raises:
        ValueError: if two tensors would have the same name.
    """
    state: dict[str, np.ndarray] = {}
    for blob, values in blobs.items():
        if blob.endswith("_momentum"):  # of the optimizer
            continue
        name = blob.replace("_", ".")
        for pattern, replacement in RENAMED:
            name = re.sub(pattern, replacement, name)
        if name in state:
            raise ValueError(f"two tensors would be named {name}, one of them {blob}")
        if name.startswith("roi_heads.box_predictor.bbox_pred."):
            values = values[4:]
        elif name.startswith("roi_heads.mask_head.predictor."):
            values = values[1:]
        elif name.startswith("roi_heads.box_predictor.cls_score."):
            values = np.concatenate([values[1:], values[:1]])
        state[name] = values
    return state


def with_backbone_prefix(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a detector's tensors with the prefixes that Detectron2's backbones have."""
    pyramid = any(name.startswith("backbone.fpn_") for name in state)
    dense = any(name.startswith("roi_heads.box_head.fc1.") for name in state)
    prefixed = {}
    for name, values in state.items():
        if NETWORK.match(name):
            prefix = "backbone.bottom_up." if pyramid else "backbone."
            if name.startswith("res5.") and not pyramid and not dense:
                prefix = "roi_heads."
            name = prefix + name
        prefixed[name] = values
    return prefixed


def with_statistics(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors with the statistics that a gain and a shift alone stand for."""
    completed = dict(state)
    for name, values in state.items():
        if name.endswith(".norm.weight"):
            module = name.removesuffix("weight")
            completed.setdefault(f"{module}running_mean", np.zeros(values.shape, np.float32))
            ones = np.full(values.shape, 1 - EPSILON, np.float32)
            completed.setdefault(f"{module}running_var", ones)
    return completed
