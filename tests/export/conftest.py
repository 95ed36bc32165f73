"""One tiny Mask R-CNN and its SavedModel, which all tests of the room share."""

import io

import keras
import numpy as np
import pytest
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.export.saved_model import saved_model

SIZES = {"a": (70, 90), "b": (64, 40), "c": (130, 75)}
SMALL = {
    "min_size": 64,
    "max_size": 96,
    "fpn_channels": 8,
    "box_units": 8,
    "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 20,
    "box_detections_per_img": 6,
    "box_score_thresh": 0.0,
    "recompute_stages": 0,
}


def png(image):
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


@pytest.fixture(scope="session")
def encode_png():
    return png


@pytest.fixture(scope="session")
def model():
    """A detector whose batch norms and classifier do something."""
    keras.utils.set_random_seed(0)
    model = rk.models.MaskRCNN("resnet18_fpn", ["circle", "square"], name="tiny", **SMALL)
    rng = np.random.default_rng(0)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.7, 1.3, w.shape) for w in layer.get_weights()])
    model.box_head.class_logits.bias.assign([0.0, 0.3, 0.1])
    model.run_eagerly = True  # tracing takes longer than the few images
    return model


@pytest.fixture(scope="session")
def detected(model, images):
    """What `detect` finds in each image alone, by name."""
    return dict(zip(images, model.detect(list(images.values())), strict=True))


@pytest.fixture(scope="session")
def images():
    """Drawn uint8 images of three sizes, by name."""
    rng = np.random.default_rng(1)
    made = {}
    for name, (height, width) in SIZES.items():
        image = rng.integers(0, 60, (height, width, 3), np.uint8)
        image[height // 4 : height // 2, width // 3 :] += 150
        made[name] = image
    return made


@pytest.fixture(scope="session")
def exported(model, images, tmp_path_factory):
    """The SavedModel, with warm-up requests from image a."""
    return saved_model(model, tmp_path_factory.mktemp("export") / "tiny", warm_up=[images["a"]])
