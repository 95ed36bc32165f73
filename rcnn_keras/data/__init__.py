"""Images and ground truth: reading, checking, drawing, augmenting and batching them."""

from rcnn_keras.data.augmentation import (
    ColorJitter,
    Compose,
    RandomErasing,
    RandomFlip,
    RandomRotation,
    RandomTranslation,
    ScaleJitter,
)
from rcnn_keras.data.coco import check_coco, load_coco
from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.images import (
    ImageError,
    image_header,
    read_image,
    resize_image,
    resized_size,
)
from rcnn_keras.data.keypoints import COCO_PERSON, Skeleton
from rcnn_keras.data.masks import decode_mask, encode_masks, paste_masks
from rcnn_keras.data.pipeline import Batches
from rcnn_keras.data.problems import DatasetError, Problem
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.data.tfrecord import check_tfrecord, load_tfrecord, save_tfrecord
from rcnn_keras.data.via import check_via, load_via
from rcnn_keras.data.voc import check_voc, load_voc

__all__ = [
    "COCO_PERSON",
    "Batches",
    "ColorJitter",
    "Compose",
    "DatasetError",
    "DetectionDataset",
    "ImageError",
    "Problem",
    "RandomErasing",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "Record",
    "ScaleJitter",
    "Skeleton",
    "check_coco",
    "check_tfrecord",
    "check_via",
    "check_voc",
    "decode_mask",
    "draw_shapes",
    "encode_masks",
    "image_header",
    "load_coco",
    "load_tfrecord",
    "load_via",
    "load_voc",
    "paste_masks",
    "read_image",
    "resize_image",
    "resized_size",
    "save_tfrecord",
]
