"""The rules for crowd regions and objects without a mask, as a configuration states them."""

import json

import pytest

from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.document import ConfigurationError


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_config):
    folder = tmp_path_factory.mktemp("config")
    return write_config(folder, {"model": {"architecture": "mask_rcnn"}, "training": {"epochs": 1}})


def changed(config, name, **values):
    """Write the training annotations with other values in every annotation; an override."""
    content = json.loads((config.parent / "train" / "annotations.json").read_text())
    for annotation in content["annotations"]:
        annotation.update(values)
    path = config.parent / "train" / name
    path.write_text(json.dumps(content))
    return f"data.train.annotations={path}"


def test_crowd_regions_as_objects(config):
    override = changed(config, "crowd.json", iscrowd=1)
    message = r"data\.train: no image has an object other than crowd .*data\.crowd: objects"
    with (
        pytest.warns(UserWarning, match="iscrowd = 1 in all"),
        pytest.raises(ConfigurationError, match=message),
    ):
        read_data(load_configuration(config, [override]).data)
    configuration = load_configuration(config, [override, "data.crowd=objects"])
    with pytest.warns(UserWarning, match="crowd regions read as ordinary objects"):
        train_set, _ = read_data(configuration.data, masks=True)
    assert not any(record.crowd.any() for record in train_set)


def test_objects_without_a_mask(config):
    override = changed(config, "bare.json", segmentation=[])
    configuration = load_configuration(config, [override])
    with pytest.raises(ConfigurationError, match=r"data\.train: .*without_mask in the section"):
        read_data(configuration.data, masks=True)
    configuration = load_configuration(config, [override, "data.without_mask=box"])
    with pytest.warns(UserWarning, match="boxes filled for objects without a mask"):
        train_set, _ = read_data(configuration.data, masks=True)
    assert all(len(record.segmentations) == len(record) for record in train_set)


def test_another_word_is_refused(config):
    with pytest.raises(ConfigurationError, match=r"data\.crowd = 'yes': should be 'ignore' or"):
        load_configuration(config, ["data.crowd='yes'"])
