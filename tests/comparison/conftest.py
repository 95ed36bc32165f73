"""Drawn scenes on disk, and small detectors of each kind that were not trained."""

import keras
import pytest

import rcnn_keras as rk

FASTER = {"min_size": 64, "max_size": 64, "box_units": 16, "recompute_stages": 0}
FASTER |= {"box_detections_per_img": 10}


def small(kind, classes):
    keras.utils.set_random_seed(0)
    if kind == "rcnn":
        arguments = {"crop_size": 67, "context": 6, "channels": (8,) * 5, "units": 16}
        return rk.models.RCNN("alexnet", classes, **arguments)
    if kind == "fast_rcnn":
        return rk.models.FastRCNN("zf", classes, **FASTER)
    anchors = {"rpn_post_nms_top_n_test": 20, "rpn_pre_nms_top_n_test": 50}
    sizes = {"anchor_sizes": ((8,), (16,), (32,), (64,), (128,)), "fpn_channels": 8}
    return rk.models.MaskRCNN("resnet18_fpn", classes, **FASTER, **anchors, **sizes)


@pytest.fixture(scope="session")
def make_small():
    return small


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """The folder of six scenes; `annotations.json` names their objects, with masks."""
    folder = tmp_path_factory.mktemp("scenes")
    rk.data.draw_shapes(6, size=(64, 64), seed=5, out=folder)
    return folder


@pytest.fixture(scope="session")
def val(scenes):
    return scenes / "annotations.json"


@pytest.fixture(scope="session")
def model_files(tmp_path_factory, val):
    """Files of untrained detectors by their places in the comparison."""
    folder, classes = tmp_path_factory.mktemp("models"), rk.data.load_coco(val).classes
    files = {}
    for kind in ("rcnn", "fast_rcnn"):
        files[kind] = folder / f"{kind}.keras"
        small(kind, classes).save(files[kind])
    return files
