import re
import urllib.error

import keras
import numpy as np
import pytest
from keras.src.applications.vgg16 import WEIGHTS_PATH
from keras.src.utils import file_utils

from rcnn_keras.backbones import build_backbone, load_imagenet, vgg16, vgg16_fc
from rcnn_keras.backbones.applications import CAFFE_MEAN, CAFFE_STD, SOURCES


def make_weights_random(model, seed=0):
    """Random kernels, biases, gains and statistics, all of which matter to the features."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            shape = weight.shape
            if weight.name == "kernel":
                value = rng.normal(0, np.sqrt(1.5 / np.prod(shape[:-1])), shape)
            elif weight.name in ("gamma", "moving_variance"):
                value = rng.uniform(0.5, 1.5, shape)
            else:
                value = rng.normal(0, 0.3, shape)
            weight.assign(value)


@pytest.fixture(scope="module")
def images():
    """RGB images in 0..255 whose channels differ, so that their order shows."""
    return np.random.default_rng(7).uniform((0, 50, 150), (100, 200, 255), (2, 75, 96, 3))


def ours(model, images):
    return model((images - np.array(CAFFE_MEAN)) / np.array(CAFFE_STD), training=False)


def assert_equal_features(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert expected.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.fixture(scope="module")
def original(images):
    """keras.applications' ResNet-50, and what it makes of the images."""
    model = keras.applications.ResNet50(weights=None, include_top=False)
    make_weights_random(model)
    taps = {"c4": model.get_layer("conv4_block6_out").output, "c5": model.output}
    features = keras.Model(model.input, taps)
    x = keras.applications.resnet50.preprocess_input(images.copy())
    return model, {k: v.numpy() for k, v in features(x, training=False).items()}


@pytest.mark.parametrize("norm", ["batch", "frozen_batch"])
def test_resnet50_fpn_gives_the_features_of_keras_applications(original, images, norm):
    source, expected = original
    parts = build_backbone("resnet50_fpn", norm=norm, stride_in_1x1=True, box_units=8)
    trunk_before = parts.box_trunk.get_weights()
    load_imagenet(parts.model, parts.box_trunk, "resnet50", source=source)
    maps = ours(parts.model, images)
    assert_equal_features(maps["c4"], expected["c4"])
    assert_equal_features(maps["c5"], expected["c5"])
    for before, after in zip(trunk_before, parts.box_trunk.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)  # nothing in it is ImageNet's


def test_resnet50_c4_gives_the_features_of_keras_applications(original, images):
    source, expected = original
    parts = build_backbone("resnet50", norm="frozen_batch", stride_in_1x1=True)
    load_imagenet(parts.model, parts.box_trunk, "resnet50", source=source)
    c4 = ours(parts.model, images)["c4"]
    assert_equal_features(c4, expected["c4"])
    vectors = parts.box_trunk(c4, training=False)
    assert_equal_features(vectors, expected["c5"].mean(axis=(1, 2)))


@pytest.mark.slow
def test_resnet101_takes_every_convolution():
    source = keras.applications.ResNet101(weights=None, include_top=False)
    parts = build_backbone("resnet101_fpn", norm="frozen_batch", stride_in_1x1=True, box_units=8)
    load_imagenet(parts.model, parts.box_trunk, "resnet101", source=source)
    theirs = {
        layer.kernel.numpy().tobytes(): layer.name
        for layer in source.layers
        if isinstance(layer, keras.layers.Conv2D)
    }
    convs = [layer for layer in parts.model.layers if isinstance(layer, keras.layers.Conv2D)]
    taken = {layer.name: theirs.get(layer.kernel.numpy().tobytes()) for layer in convs}
    assert taken.pop("conv1") is None  # turned from BGR to RGB
    assert len(set(taken.values()) - {None}) == len(taken) == 103
    assert taken["layer3_22_conv3"] == "conv4_block23_3_conv"


def test_vgg16_gives_the_features_of_keras_applications(images):
    convolutions = keras.applications.VGG16(weights=None, include_top=False)
    pooled = keras.Input((7, 7, 512))  # its two layers, narrower: 4096 wide they are 119 million
    x = keras.layers.Flatten(name="flatten")(pooled)
    x = keras.layers.Dense(12, activation="relu", name="fc1")(x)
    x = keras.layers.Dense(12, activation="relu", name="fc2")(x)
    source = keras.Model(
        [convolutions.input, pooled], [convolutions.get_layer("block5_conv3").output, x]
    )
    make_weights_random(source)
    rng = np.random.default_rng(1)
    pool = rng.normal(size=(3, 7, 7, 512)).astype(np.float32)
    preprocessed = keras.applications.vgg16.preprocess_input(images.copy())
    expected_map, expected_vectors = source([preprocessed, pool])

    model, trunk = vgg16(), vgg16_fc(12)
    load_imagenet(model, trunk, "vgg16", source=source)
    assert_equal_features(ours(model, images)["c4"], expected_map)
    assert_equal_features(trunk(pool), expected_vectors)


def test_keras_applications_calls_its_dense_layers_so():
    source = keras.applications.VGG16(weights=None, input_shape=(32, 32, 3))
    names = [layer.name for layer in source.layers if isinstance(layer, keras.layers.Dense)]
    assert names == ["fc1", "fc2", "predictions"]


@pytest.mark.parametrize("name", ["resnet18", "resnet50_fpn", "mobilenet"])
def test_an_unknown_architecture_is_refused(name):
    with pytest.raises(ValueError, match=f"no {name}; it has vgg16, resnet50, resnet101"):
        load_imagenet(keras.Sequential(), keras.Sequential(), name)


def test_group_norm_has_no_imagenet_weights():
    model = keras.Sequential([keras.layers.GroupNormalization()])
    with pytest.raises(ValueError, match=r"needs norm='batch' or 'frozen_batch'.*norm='group'"):
        load_imagenet(model, keras.Sequential(), "resnet50")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """A machine without a network and with nothing fetched before; the addresses asked for."""
    asked = []

    def refuse(url, *args, **kwargs):
        asked.append(url)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(file_utils, "urlretrieve", refuse)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    return asked


def test_offline_error_names_the_file_and_the_way_out(offline):
    with pytest.raises(OSError, match="ImageNet weights of resnet50 could not be fetched") as error:
        load_imagenet(keras.Sequential(), keras.Sequential(), "resnet50")
    (url,) = offline
    message = str(error.value)
    assert f" {url.rsplit('/', 1)[1]} " in message
    assert re.search(r"_notop\.h5 .*~/\.keras/models/.*backbone_weights=None", message)
    assert "Name or service not known" in message


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_fetched(name, monkeypatch):
    asked = {}

    def refuse(**arguments):
        asked.update(arguments)
        raise RuntimeError("no network")

    monkeypatch.setattr(keras.applications, SOURCES[name], refuse)
    with pytest.raises(OSError, match="no network") as error:
        load_imagenet(keras.Sequential(), keras.Sequential(), name)
    assert asked == {"weights": "imagenet", "include_top": name == "vgg16"}
    ending = "" if name == "vgg16" else "_notop"
    assert f" {name}_weights_tf_dim_ordering_tf_kernels{ending}.h5 " in str(error.value)
    if name == "vgg16":
        assert WEIGHTS_PATH.endswith(f"/{name}_weights_tf_dim_ordering_tf_kernels.h5")
