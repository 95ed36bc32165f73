"""A small dataset and a small detector that the model tests share."""

import keras
import pytest

import rcnn_keras as rk


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """Six drawn scenes of 96 x 96 pixels."""
    return rk.data.draw_shapes(6, size=(96, 96), seed=5, out=tmp_path_factory.mktemp("scenes"))


def small_detector(
    classes, architecture=rk.models.FasterRCNN, backbone="resnet18_fpn", **arguments
):
    small = {
        "min_size": 96,
        "max_size": 96,
        "fpn_channels": 32,
        "box_units": 64,
        "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
        "rpn_pre_nms_top_n_train": 200,
        "rpn_pre_nms_top_n_test": 100,
        "rpn_post_nms_top_n_train": 100,
        "rpn_post_nms_top_n_test": 50,
        "box_batch_size_per_image": 32,
        "box_detections_per_img": 20,
        "recompute_stages": 0,  # less to trace
    }
    if backbone.startswith("resnet"):
        small["backbone_width"] = 0.25
    keras.utils.set_random_seed(0)
    return architecture(backbone, classes, **(small | arguments))


@pytest.fixture(scope="session")
def make_detector():
    return small_detector


@pytest.fixture(scope="module")
def detector(scenes):
    """A compiled detector that was not trained; tests must leave its weights alone."""
    model = small_detector(scenes.classes, box_score_thresh=0.0)
    model.compile(keras.optimizers.SGD(0.001))
    return model
