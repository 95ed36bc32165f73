"""The side of torchvision; called by tools/benchmarks/speed.py with a Python that has it."""

import torch
from side import found, images_of, main, objects_of, tensor_of
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.roi_heads import maskrcnn_inference, paste_masks_in_image
from torchvision.ops import FrozenBatchNorm2d

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def build(args):
    """Return what torchvision's builders make, with drawn weights, and what waits for its device.

    Without weights the builders have batch norm that is trained, in all of the backbone; with
    published weights it is frozen, and three of the five stages are trained.
    """
    workload = args.workload
    torch.set_num_threads(args.threads)
    frozen = workload.norm == "frozen_batch"
    backbone = resnet_fpn_backbone(
        backbone_name=f"resnet{workload.depth}",
        weights=None,
        trainable_layers=3 if frozen else 5,
        norm_layer=FrozenBatchNorm2d if frozen else torch.nn.BatchNorm2d,
    )
    sizes = workload.height, workload.width
    model = (MaskRCNN if workload.masks else FasterRCNN)(
        backbone,
        num_classes=workload.classes + 1,
        min_size=min(sizes),
        max_size=max(sizes),
        box_batch_size_per_image=workload.rois,
    )
    for name, tensor in model.state_dict().items():
        tensor.copy_(torch.from_numpy(tensor_of(workload, name, tensor.shape)))
    return model.to(DEVICE), torch.cuda.synchronize if DEVICE == "cuda" else lambda: None


def batch_of(workload):
    """Return the images as torchvision wants them, a list of `(3, H, W)` in 0..1."""
    images = torch.from_numpy(images_of(workload)).permute(0, 3, 1, 2).contiguous() / 255
    return list(images.to(DEVICE))


@torch.inference_mode()
def inference(workload, model, clock):
    """Time a batch of images to detections, with masks as bool masks of the image."""
    model.eval()
    images = batch_of(workload)

    def step():
        objects = model(images)
        if workload.masks:
            for found_in_image in objects:
                found_in_image["masks"] = found_in_image["masks"] > 0.5
        return objects

    return found(clock.time("step", step)[0]["scores"].cpu())


def training(workload, model, clock, **options):
    """Time training steps; return the first one's loss."""
    images, targets = batch_of(workload), []
    for truth in objects_of(workload):
        target = {
            "boxes": torch.from_numpy(truth["boxes"]),
            "labels": torch.from_numpy(truth["labels"]) + 1,
        }
        if workload.masks:
            target["masks"] = torch.from_numpy(truth["masks"])
        targets.append({name: tensor.to(DEVICE) for name, tensor in target.items()})
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.9)
    model.train()

    def step():
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return f"{clock.time('step', step, **options):.3f}"


def memory(workload, model, clock):
    """Take training steps for their memory."""
    return training(workload, model, clock, warm_up=0)


@torch.inference_mode()
def stages(workload, model, clock):
    """Time each part of Mask R-CNN on what the part before it gives."""
    model.eval()
    heads, sizes = model.roi_heads, [(workload.height, workload.width)] * workload.batch
    images, _ = model.transform(batch_of(workload))

    def box_branch(features, proposals):
        pooled = heads.box_roi_pool(features, proposals, sizes)
        logits, deltas = heads.box_predictor(heads.box_head(pooled))
        return heads.postprocess_detections(logits, deltas, proposals, sizes)

    def mask_branch(features, boxes, labels):
        pooled = heads.mask_roi_pool(features, boxes, sizes)
        return maskrcnn_inference(heads.mask_predictor(heads.mask_head(pooled)), labels)

    def paste(masks, boxes):
        return paste_masks_in_image(masks, boxes, sizes[0]) > 0.5

    features = clock.time("backbone and pyramid", model.backbone, images.tensors)
    proposals, _ = clock.time("region proposal network", model.rpn, images, features)
    boxes, scores, labels = clock.time("box branch", box_branch, features, proposals)
    masks = clock.time("mask branch", mask_branch, features, boxes, labels)
    clock.time("pasting the masks", paste, masks[0], boxes[0])
    return found(scores[0].cpu())


WORKS = {"inference": inference, "stages": stages, "training": training, "memory": memory}

if __name__ == "__main__":
    main(build, WORKS, __doc__)
