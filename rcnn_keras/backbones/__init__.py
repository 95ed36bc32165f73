"""Networks from images to named feature maps, and the trunks of their second stages."""

from rcnn_keras.backbones.applications import load_imagenet
from rcnn_keras.backbones.backbone import Backbone, build_backbone
from rcnn_keras.backbones.crop_networks import alexnet, crop_network
from rcnn_keras.backbones.resnet import resnet, resnet_c5
from rcnn_keras.backbones.vgg import vgg16, vgg16_fc, zf

__all__ = [
    "Backbone",
    "alexnet",
    "build_backbone",
    "crop_network",
    "load_imagenet",
    "resnet",
    "resnet_c5",
    "vgg16",
    "vgg16_fc",
    "zf",
]
