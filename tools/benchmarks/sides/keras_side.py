"""The side of rcnn_keras; called by tools/benchmarks/speed.py."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import keras
import numpy as np
import tensorflow as tf
from side import found, images_of, main, objects_of, tensor_of

import rcnn_keras as rk
from rcnn_keras.convert.torchvision import detector_targets
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.pipeline import SIZE_MULTIPLE


def build(args):
    """Return the model with the weights of the other side, and what waits for the device."""
    workload = args.workload
    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)  # see tools/benchmarks/speed.py
    cv2.setNumThreads(args.threads)
    sizes = workload.height, workload.width
    model = (rk.models.MaskRCNN if workload.masks else rk.models.FasterRCNN)(
        f"resnet{workload.depth}_fpn",
        [f"class {number}" for number in range(workload.classes)],
        min_size=min(sizes),
        max_size=max(sizes),
        norm=workload.norm,
        box_batch_size_per_image=workload.rois,
    )
    if workload.norm == "frozen_batch":
        model.freeze_backbone(None)
    for name, slot in detector_targets(model).items():
        slot.variable.assign(slot.arrange(tensor_of(workload, name, slot.shape)))
    if args.folded:
        model = rk.models.fold_batchnorm(model, winograd=True)
    return model, tf.test.experimental.sync_devices


def padded(arrays):
    """Return maps `(..., H, W)` with zeros to the sizes that `Batches` and torchvision pad to."""
    margins = [(0, -side % SIZE_MULTIPLE) for side in arrays.shape[-2:]]
    return np.pad(arrays, [(0, 0)] * (arrays.ndim - 2) + margins)


def batch_of(workload):
    """Return the inputs as `Batches` give them."""
    images = padded(images_of(workload).transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    return {
        "images": tf.constant(images.astype(np.float32)),
        "image_sizes": tf.constant([[workload.height, workload.width]] * workload.batch),
        "image_ids": tf.range(workload.batch, dtype=tf.int64),
    }


def detections(outputs, model, workload):
    """Return the `Detections` of the first image."""
    count = int(outputs["num_detections"][0])
    arrays = {
        name: np.asarray(outputs[name][0, :count])
        for name in ("boxes", "scores", "labels", "masks")
        if name in outputs
    }
    return Detections(**arrays, classes=model.classes, image_size=(workload.height, workload.width))


def inference(workload, model, clock):
    """Time a batch of images to detections, with masks as bool masks of the image."""
    inputs = batch_of(workload)
    run = tf.function(lambda inputs: model(inputs, training=False))

    def step():
        objects = detections(run(inputs), model, workload)
        if workload.masks:
            objects.bool_masks()
        return objects

    return found(clock.time("step", step).scores)


def training(workload, model, clock, **options):
    """Time training steps; return the first one's loss."""
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9))
    drawn = objects_of(workload)
    targets = {
        "boxes": np.stack([truth["boxes"] for truth in drawn]),
        "labels": np.stack([truth["labels"] for truth in drawn]).astype(np.int32),
        "crowd": np.zeros((workload.batch, workload.objects), bool),
    }
    if workload.masks:
        masks = [np.packbits(padded(truth["masks"]), axis=-1) for truth in drawn]
        targets["masks"] = np.stack(masks)
    del drawn
    inputs = batch_of(workload)
    targets = {name: tf.constant(array) for name, array in targets.items()}
    run = tf.function(lambda: model.train_step((inputs, targets)))
    return f"{float(clock.time('step', run, **options)['loss']):.3f}"


def memory(workload, model, clock):
    """Take training steps for their memory."""
    return training(workload, model, clock, warm_up=0)


def stages(workload, model, clock):
    """Time each part of Mask R-CNN on what the part before it gives."""
    inputs = batch_of(workload)
    sizes = inputs["image_sizes"]
    images = model.normalize(inputs["images"], sizes)

    def backbone_and_pyramid(images):
        maps = model.backbone(images, training=False)
        return model.fpn([maps[level] for level in sorted(maps)], training=False)

    def proposal_network(images, features):
        logits, deltas = model.rpn_head(features)
        anchors = model.anchor_generator(images, features)
        return model.proposal_layer(logits, deltas, anchors, sizes, training=False)

    def box_branch(features, rois, count):
        logits, deltas = model.box_head(model.box_pooling(features, rois))
        return model.detection_layer(logits, deltas, rois, count, sizes)

    def mask_branch(features, boxes, labels):
        rois, image = model.real_rois(boxes, labels)
        logits = model.mask_head(model.mask_roi_align(features, rois, image))
        return model.mask_layer(logits, labels)

    features = clock.time("backbone and pyramid", tf.function(backbone_and_pyramid), images)
    proposals = clock.time(
        "region proposal network", tf.function(proposal_network), images, features
    )
    boxes = clock.time("box branch", tf.function(box_branch), features, *proposals)
    masks = clock.time(
        "mask branch", tf.function(mask_branch), features, boxes["boxes"], boxes["labels"]
    )
    objects = detections(boxes | {"masks": masks}, model, workload)
    clock.time("pasting the masks", objects.bool_masks)
    return found(objects.scores)


WORKS = {"inference": inference, "stages": stages, "training": training, "memory": memory}

if __name__ == "__main__":
    main(build, WORKS, __doc__)
