"""A small run on drawn shapes; a module with a fixture `config` has the fixture `run`."""

import pytest

from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.run import train


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """A finished run: its configuration, folder and history."""
    out = tmp_path_factory.mktemp("runs") / "shapes"
    configuration = load_configuration(config)
    return configuration, out, train(configuration, out)
