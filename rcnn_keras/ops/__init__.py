"""Pure functions on tensors: the only room that knows which TensorFlow kernel serves what."""

from rcnn_keras.ops.batching import (
    flatten_batch,
    gather_valid,
    in_chunks,
    in_equal_chunks,
    scatter_valid,
    select_rows,
    take_positions,
    take_rows,
    unselect_rows,
)
from rcnn_keras.ops.boxes import (
    area,
    base_anchors,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    grid_anchors,
    inside_image,
    iou,
    valid_boxes,
)
from rcnn_keras.ops.execution import (
    after,
    check_finite,
    gather_replicas,
    is_multi_worker,
    num_replicas,
    recompute,
    recomputing,
    scoped_gradients,
    sum_over_replicas,
)
from rcnn_keras.ops.grouped_conv import grouped_conv
from rcnn_keras.ops.inclusive_boxes import (
    clip_to_windows,
    decode_inclusive,
    to_exclusive,
    to_inclusive,
)
from rcnn_keras.ops.keypoints import (
    bicubic_weights,
    decode_heatmaps,
    keypoint_targets,
    portable_decode_heatmaps,
)
from rcnn_keras.ops.masks import (
    mask_targets,
    pack_bits,
    portable_mask_targets,
    to_bitmasks,
    unpack_bits,
)
from rcnn_keras.ops.matching import match, sample
from rcnn_keras.ops.nms import grouped_nms, move_apart, nms, nms_loop, suppressors, top_k
from rcnn_keras.ops.normalization import batch_norm, local_response_norm
from rcnn_keras.ops.pyramid_crop import listed_pyramid_crop, portable_pyramid_crop
from rcnn_keras.ops.random import drawing_for, drawn_for, stateless_uniform
from rcnn_keras.ops.roi_align import (
    listed_roi_align,
    multilevel_roi_align,
    portable_roi_align,
    roi_align,
    roi_levels,
    sample_points,
)
from rcnn_keras.ops.roi_pool import listed_roi_pool, pool_cells, portable_roi_pool, roi_pool
from rcnn_keras.ops.warp import portable_warp_regions, warp_regions
from rcnn_keras.ops.winograd import winograd_conv

__all__ = [
    "after",
    "area",
    "base_anchors",
    "batch_norm",
    "bicubic_weights",
    "check_finite",
    "clip_boxes",
    "clip_to_windows",
    "decode_boxes",
    "decode_heatmaps",
    "decode_inclusive",
    "drawing_for",
    "drawn_for",
    "encode_boxes",
    "flatten_batch",
    "gather_replicas",
    "gather_valid",
    "grid_anchors",
    "grouped_conv",
    "grouped_nms",
    "in_chunks",
    "in_equal_chunks",
    "inside_image",
    "iou",
    "is_multi_worker",
    "keypoint_targets",
    "listed_pyramid_crop",
    "listed_roi_align",
    "listed_roi_pool",
    "local_response_norm",
    "mask_targets",
    "match",
    "move_apart",
    "multilevel_roi_align",
    "nms",
    "nms_loop",
    "num_replicas",
    "pack_bits",
    "pool_cells",
    "portable_decode_heatmaps",
    "portable_mask_targets",
    "portable_pyramid_crop",
    "portable_roi_align",
    "portable_roi_pool",
    "portable_warp_regions",
    "recompute",
    "recomputing",
    "roi_align",
    "roi_levels",
    "roi_pool",
    "sample",
    "sample_points",
    "scatter_valid",
    "scoped_gradients",
    "select_rows",
    "stateless_uniform",
    "sum_over_replicas",
    "suppressors",
    "take_positions",
    "take_rows",
    "to_bitmasks",
    "to_exclusive",
    "to_inclusive",
    "top_k",
    "unpack_bits",
    "unselect_rows",
    "valid_boxes",
    "warp_regions",
    "winograd_conv",
]
