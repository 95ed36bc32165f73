"""A batch as a detector reads it, with all that a caller may leave out.

B images a batch, N ground-truth boxes.
"""

from keras import ops

from rcnn_keras.ops import packed_masks


def complete_inputs(inputs):
    """Return the inputs as a dict with sizes, ids and counts made up where left out."""
    inputs = dict(inputs) if isinstance(inputs, dict) else {"images": inputs}
    batch, height, width = ops.shape(inputs["images"])[:3]
    if inputs.get("image_sizes") is None:
        size = ops.stack([ops.cast(height, "int32"), ops.cast(width, "int32")])
        inputs["image_sizes"] = ops.tile(size[None], [batch, 1])
    inputs["image_sizes"] = ops.cast(inputs["image_sizes"], "int32")
    if inputs.get("image_ids") is None:
        inputs["image_ids"] = ops.arange(batch)
    inputs["image_ids"] = ops.cast(inputs["image_ids"], "int64")  # dropout multiplies them
    if inputs.get("proposals") is not None and inputs.get("num_proposals") is None:
        inputs["num_proposals"] = ops.full((batch,), ops.shape(inputs["proposals"])[1], "int32")
    return inputs


def complete_targets(targets, height, width):
    """Return the targets with `crowd`, packed masks, and one more row of padding.

    Matching looks for the best of N boxes and so needs one, also in a batch that has none.
    """
    boxes, labels = targets["boxes"], targets["labels"]
    crowd = targets.get("crowd")
    crowd = ops.zeros_like(labels, "bool") if crowd is None else ops.cast(crowd, "bool")
    row = ((0, 0), (0, 1))
    masks = {}
    if "masks" in targets:
        packed = packed_masks(targets["masks"], height, width)
        masks = {"masks": ops.pad(packed, (*row, (0, 0), (0, 0)))}
    return masks | {
        "boxes": ops.pad(boxes, (*row, (0, 0))),
        "labels": ops.pad(labels, row, constant_values=-1),
        "crowd": ops.pad(crowd, row, constant_values=False),
    }
