"""A small run on drawn shapes; a module with a fixture `config` has the fixture `run`."""

import pytest
import yaml

from rcnn_keras.data import draw_shapes
from rcnn_keras.training.configuration import load_configuration
from rcnn_keras.training.run import train

SMALL = {
    "model": {
        "backbone": "resnet18_fpn",
        "min_size": 64,
        "max_size": 64,
        "fpn_channels": 8,
        "box_units": 8,
        "anchor_sizes": [[8], [16], [32], [64], [128]],
        "rpn_pre_nms_top_n_train": 50,
        "rpn_post_nms_top_n_train": 20,
        "rpn_pre_nms_top_n_test": 50,
        "rpn_post_nms_top_n_test": 20,
        "box_batch_size_per_image": 16,
        "box_detections_per_img": 5,
    },
    "data": {
        "format": "coco",
        "train": {"annotations": "train/annotations.json"},
        "val": {"annotations": "val/annotations.json"},
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.01},
}


@pytest.fixture(scope="session")
def write_config():
    """Return a function that draws data and writes a configuration of it, which it returns."""

    def write(folder, sections, *, train_images=2, val_images=2):
        draw_shapes(train_images, size=(64, 64), out=folder / "train")
        draw_shapes(val_images, size=(64, 64), seed=1, out=folder / "val")
        merged = {name: SMALL.get(name, {}) | keys for name, keys in (SMALL | sections).items()}
        path = folder / "shapes.yaml"
        path.write_text(yaml.safe_dump(merged))
        return path

    return write


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A finished run: its configuration, folder and history."""
    out = tmp_path_factory.mktemp("runs") / "shapes"
    configuration = load_configuration(config)
    return configuration, out, train(configuration, out)
