"""Images and ground truth: reading, checking, drawing, augmenting and batching them."""

from rcnn_keras.data.augmentation import (
    color_jitter,
    compose,
    erasing,
    flips,
    rotation,
    scale_jitter,
    translation,
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
from rcnn_keras.data.masks import decode_mask, encode_masks, paste_masks
from rcnn_keras.data.pipeline import Batches
from rcnn_keras.data.problems import DatasetError, Problem
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.data.tfrecord import check_records, load_records, pack_records
from rcnn_keras.data.voc import check_voc, load_voc

__all__ = [
    "Batches",
    "DatasetError",
    "DetectionDataset",
    "ImageError",
    "Problem",
    "Record",
    "check_coco",
    "check_records",
    "check_voc",
    "color_jitter",
    "compose",
    "decode_mask",
    "draw_shapes",
    "encode_masks",
    "erasing",
    "flips",
    "image_header",
    "load_coco",
    "load_records",
    "load_voc",
    "pack_records",
    "paste_masks",
    "read_image",
    "resize_image",
    "resized_size",
    "rotation",
    "scale_jitter",
    "translation",
]
