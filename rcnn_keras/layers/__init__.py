"""Keras layers, thin around `rcnn_keras.ops`."""

from rcnn_keras.layers.anchor_generator import AnchorGenerator
from rcnn_keras.layers.anchor_sampler import AnchorSampler
from rcnn_keras.layers.best_class_detections import BestClassDetectionLayer
from rcnn_keras.layers.box_head import BoxHead
from rcnn_keras.layers.cascade import BoxRefinement, MeanLogits, RoIMatcher
from rcnn_keras.layers.centred_canvas import CentredCanvas
from rcnn_keras.layers.detection_layer import DetectionLayer
from rcnn_keras.layers.feature_pyramid import FeaturePyramid
from rcnn_keras.layers.grouped_conv import GroupedConv2D
from rcnn_keras.layers.image_normalization import ImageNormalization
from rcnn_keras.layers.joint_proposals import JointProposalLayer
from rcnn_keras.layers.keypoint_head import KeypointHead, KeypointLayer
from rcnn_keras.layers.local_response_norm import LocalResponseNorm
from rcnn_keras.layers.mask_head import MaskHead, MaskLayer, RealRoIs
from rcnn_keras.layers.normalization import FrozenBatchNormalization, normalization
from rcnn_keras.layers.proposal_layer import ProposalLayer
from rcnn_keras.layers.pyramid_crop import PyramidCrop
from rcnn_keras.layers.region_features import RegionFeatures
from rcnn_keras.layers.roi_align import RoIAlign
from rcnn_keras.layers.roi_pool import RoIPool
from rcnn_keras.layers.roi_sampler import RoISampler
from rcnn_keras.layers.rpn_head import RPNHead
from rcnn_keras.layers.stateless_dropout import StatelessDropout
from rcnn_keras.layers.stochastic_depth import StochasticDepth
from rcnn_keras.layers.winograd_conv import WinogradConv2D

__all__ = [
    "AnchorGenerator",
    "AnchorSampler",
    "BestClassDetectionLayer",
    "BoxHead",
    "BoxRefinement",
    "CentredCanvas",
    "DetectionLayer",
    "FeaturePyramid",
    "FrozenBatchNormalization",
    "GroupedConv2D",
    "ImageNormalization",
    "JointProposalLayer",
    "KeypointHead",
    "KeypointLayer",
    "LocalResponseNorm",
    "MaskHead",
    "MaskLayer",
    "MeanLogits",
    "ProposalLayer",
    "PyramidCrop",
    "RPNHead",
    "RealRoIs",
    "RegionFeatures",
    "RoIAlign",
    "RoIMatcher",
    "RoIPool",
    "RoISampler",
    "StatelessDropout",
    "StochasticDepth",
    "WinogradConv2D",
    "normalization",
]
