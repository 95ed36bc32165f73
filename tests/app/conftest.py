"""A small detector and a drawn scene for the tests of the page."""

import keras
import numpy as np
import pytest

from rcnn_keras.data import draw_shapes


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """The path of a drawn picture, 96 x 128."""
    return draw_shapes(1, size=(96, 128), out=tmp_path_factory.mktemp("drawn"))[0].path


@pytest.fixture(scope="session")
def make_detector():
    """A function of a class and arguments: an untrained detector with scores from 0 to 1."""

    def make(architecture, **arguments):
        keras.utils.set_random_seed(0)
        small = {
            "classes": ["circle", "triangle", "square", "star"],
            "min_size": 64,
            "max_size": 64,
            "fpn_channels": 8,
            "box_units": 8,
            "rpn_pre_nms_top_n_test": 60,
            "rpn_post_nms_top_n_test": 30,
            "rpn_nms_thresh": 0.9,  # so that there is something for NMS to do
            "box_detections_per_img": 25,
        }
        model = architecture(**(small | arguments))
        kernel = model.box_head.class_logits.kernel
        kernel.assign(np.random.default_rng(0).normal(0, 30, kernel.shape))
        return model

    return make
