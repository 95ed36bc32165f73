"""A small run on drawn shapes; a module with a fixture `config` has the fixture `run`."""

import pytest
import yaml

from rcnn_keras.data import draw_shapes
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.run import train

SECTIONS = {
    "data": {
        "format": "coco",
        "train": {"annotations": "train/annotations.json"},
        "val": {"annotations": "val/annotations.json"},
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.01},
}


@pytest.fixture(scope="session")
def write_config(small_arguments):
    """Return a function that draws data and writes a configuration of it, which it returns."""

    def write(folder, sections, *, train_images=2, val_images=2):
        draw_shapes(train_images, size=(64, 64), out=folder / "train")
        draw_shapes(val_images, size=(64, 64), seed=1, out=folder / "val")
        small = SECTIONS | {"model": small_arguments}
        merged = {name: small.get(name, {}) | keys for name, keys in (small | sections).items()}
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
