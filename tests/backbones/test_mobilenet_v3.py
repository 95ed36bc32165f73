import keras
import numpy as np
import pytest

from rcnn_keras.backbones.mobilenet_v3 import mobilenet_v3_large
from rcnn_keras.layers.normalization import BatchNormalization, FrozenBatchNormalization

# The features' numbers are compared with torchvision's in tests/parity.


def test_parameters_and_shapes():
    model = mobilenet_v3_large()
    trained = sum(w.value.shape.num_elements() for w in model.trainable_weights)
    statistics = sum(w.value.shape.num_elements() for w in model.non_trainable_weights)
    assert trained == 5_483_032 - (960 * 1280 + 1280 + 1280 * 1000 + 1000)  # less the classifier
    assert statistics == 2 * 12_200
    assert model.compute_output_shape((2, 64, 96, 3)) == {
        "c4": (2, 2, 3, 160),
        "c5": (2, 2, 3, 960),
    }


def test_odd_sizes_are_rounded_up():
    maps = mobilenet_v3_large()(np.zeros((1, 65, 97, 3), np.float32))
    assert {tuple(x.shape[1:3]) for x in maps.values()} == {(3, 4)}


def test_layers_have_the_names_of_torchvisions_modules():
    names = {layer.name for layer in mobilenet_v3_large().layers if layer.weights}
    assert {f"features_{k}_conv" for k in (0, 16)} <= names
    blocks = {name.split("_")[1] for name in names if "block" in name}
    assert blocks == {str(k) for k in range(1, 16)}

    def of(block):
        return sorted(
            n.removeprefix(f"features_{block}_block_") for n in names if f"s_{block}_b" in n
        )

    assert of(1) == ["0_conv", "0_norm", "1_conv", "1_norm"]  # does not widen
    assert of(4) == [
        *("0_conv", "0_norm", "1_conv", "1_norm"),
        *("2_fc1", "2_fc2", "3_conv", "3_norm"),
    ]
    assert of(7) == ["0_conv", "0_norm", "1_conv", "1_norm", "2_conv", "2_norm"]


@pytest.mark.parametrize(("block", "channels"), [(4, 24), (5, 32), (11, 120), (12, 168), (15, 240)])
def test_channels_of_the_squeeze(block, channels):
    layer = mobilenet_v3_large().get_layer(f"features_{block}_block_2_fc1")
    assert layer.filters == channels


@pytest.mark.parametrize(
    ("norm", "cls", "trained", "biases"),
    [
        ("batch", BatchNormalization, 92, 0),
        ("frozen_batch", FrozenBatchNormalization, 0, 0),
        (None, keras.layers.Identity, 0, 46),
    ],
)
def test_norm_chooses_the_kind_of_every_normalisation(norm, cls, trained, biases):
    model = mobilenet_v3_large(norm)
    norms = [layer for layer in model.layers if layer.name.endswith("_norm")]
    assert len(norms) == 46
    assert {type(layer) for layer in norms} == {cls}
    squeezes = 8 * 4
    assert len(model.trainable_weights) == 46 + squeezes + trained + biases
    maps = model(np.ones((1, 32, 32, 3), np.float32), training=True)
    assert np.isfinite(maps["c5"]).all()


def test_group_norm_is_refused():
    with pytest.raises(ValueError, match="MobileNetV3 has no norm='group'"):
        mobilenet_v3_large("group")


def test_kernels_are_drawn_by_he_over_the_fan_out():
    model = mobilenet_v3_large()
    for name, fan_out in (("features_16_conv", 960), ("features_15_block_1_conv", 25 * 960)):
        kernel = model.get_layer(name).kernel.numpy()
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.05)
