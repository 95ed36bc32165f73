"""keras.applications: its networks as backbones, and its weights for those of this package."""

import re
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

# keras.applications trained both networks on BGR images in 0..255 less these means.
CAFFE_MEAN, CAFFE_STD = (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)
SOURCES = {"vgg16": "VGG16", "resnet50": "ResNet50", "resnet101": "ResNet101"}
KERAS_RESNET_EPSILON = 1.001e-5


def load_imagenet(
    model: keras.Model, trunk: keras.Model, name: str, source: keras.Model | None = None
) -> None:
    """Copy ImageNet weights from keras.applications into a backbone.

    keras.applications' ResNets halve the map in the first 1x1 convolution and have biases there;
    the biases move into the means of the batch norms that follow, and the first kernel turns from
    BGR to RGB, so the features are those of the original on images less `CAFFE_MEAN`.

    Args:
        model: backbone model of `build_backbone`.
        trunk: its box trunk, which takes what belongs to it (fc6, fc7 or the fifth stage).
        name: `"vgg16"`, `"resnet50"` or `"resnet101"`, without `_fpn`.
        source: keras.applications model to copy from; it is downloaded by default.

    Raises:
        ValueError: if keras.applications has no weights for this architecture, or if the model
            has group norm, for which ImageNet's batch statistics are of no use.
        OSError: if the weights cannot be had; says where to put the file.
    """
    if name not in SOURCES:
        raise ValueError(
            f"backbone_weights='imagenet': keras.applications has no {name}; it has "
            f"{', '.join(SOURCES)}. Use backbone_weights=None to start from random weights"
        )
    if any(isinstance(layer, keras.layers.GroupNormalization) for layer in model.layers):
        raise ValueError(
            "backbone_weights='imagenet' needs norm='batch' or 'frozen_batch': the weights were "
            "trained with batch norm; received norm='group'"
        )
    source = source if source is not None else _download(name)
    if name == "vgg16":
        _copy_vgg(source, model, trunk)
    else:
        _copy_resnet(source, model, trunk)


def _download(name: str) -> keras.Model:
    application = getattr(keras.applications, SOURCES[name])
    top = name == "vgg16"  # fc6 and fc7 are part of the detector
    try:
        return application(weights="imagenet", include_top=top)
    except Exception as error:  # Keras raises a bare Exception for a failed download
        suffix = "" if top else "_notop"
        raise OSError(
            f"the ImageNet weights of {name} could not be fetched ({error}). Fetch the file "
            f"{name}_weights_tf_dim_ordering_tf_kernels{suffix}.h5 on a machine that can, put it "
            f"into ~/.keras/models/, or use backbone_weights=None to start from random weights"
        ) from error


def _copy_vgg(source: keras.Model, model: keras.Model, trunk: keras.Model) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = source.get_layer(layer.name).get_weights()
            if layer.name == "block1_conv1":
                kernel = kernel[:, :, ::-1]
            layer.set_weights([kernel, bias])
    for ours, theirs in (("fc6", "fc1"), ("fc7", "fc2")):
        trunk.get_layer(ours).set_weights(source.get_layer(theirs).get_weights())


def _copy_resnet(source: keras.Model, model: keras.Model, trunk: keras.Model) -> None:
    layers = {layer.name: layer for layer in (*model.layers, *trunk.layers)}
    for name, layer in layers.items():
        if not isinstance(layer, keras.layers.Conv2D):
            continue
        conv, norm = _application_names(name)
        kernel, bias = source.get_layer(conv).get_weights()
        gamma, beta, mean, variance = source.get_layer(norm).get_weights()
        if name == "conv1":
            kernel = kernel[:, :, ::-1]
        layer.set_weights([kernel])
        norm_layer = layers[_norm_of(name)]
        shift = KERAS_RESNET_EPSILON - norm_layer.epsilon
        norm_layer.set_weights([gamma, beta, mean - bias, variance + shift])


def _norm_of(conv: str) -> str:
    """Return the name of the norm after our convolution: `layer1_0_conv2` -> `layer1_0_bn2`."""
    return f"{conv[:-4]}bn" if conv.endswith("downsample_conv") else conv.replace("conv", "bn")


def _application_names(name: str) -> tuple[str, str]:
    """Return keras.applications' names of a convolution and its norm for our name."""
    if name == "conv1":
        return "conv1_conv", "conv1_bn"
    stage, block, *rest = name.removeprefix("layer").split("_")
    number = 0 if rest[0] == "downsample" else int(rest[0].removeprefix("conv"))
    prefix = f"conv{int(stage) + 1}_block{int(block) + 1}_{number}"
    return f"{prefix}_conv", f"{prefix}_bn"


IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
HALF = (127.5, 127.5, 127.5)
NOTHING_LESS, AS_IT_IS = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
SINGLE_STRIDE = 16  # of the one map without a pyramid, as in the papers

# Mean, deviation, and the colour that is zero after all preprocessing, the network's own included.
PREPROCESSING: dict[str, tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]] = {
    "caffe": (CAFFE_MEAN, CAFFE_STD, CAFFE_MEAN),
    "tf": (HALF, HALF, HALF),
    "torch": (IMAGENET_MEAN, IMAGENET_STD, IMAGENET_MEAN),
    "inside": (NOTHING_LESS, AS_IT_IS, IMAGENET_MEAN),  # the network begins with it
    "inside_tf": (NOTHING_LESS, AS_IT_IS, HALF),
}

BETWEEN_LEVELS = (  # give no map of a level
    keras.layers.InputLayer,
    keras.layers.ZeroPadding2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
)


@dataclass(frozen=True)
class Application:
    """A function of keras.applications.

    Attributes:
        function: its name.
        preprocessing: key of `PREPROCESSING`.
        strides: of the maps that can be read from it.
        num_stages: of the network, see `freeze_backbone`.
        level_suffixes: how the names of the layers end that give the maps: the last such layer of
            each stride, or the last of all where no name ends so.
    """

    function: str
    preprocessing: str
    strides: tuple[int, ...] = (4, 8, 16, 32)
    num_stages: int = 5
    level_suffixes: tuple[str, ...] = ("",)


def _family(
    functions: dict[str, str], preprocessing: str, **options: Any
) -> dict[str, Application]:
    return {name: Application(f, preprocessing, **options) for name, f in functions.items()}


# Left out: Inception and NASNet, whose maps are no whole fraction of the image.
APPLICATIONS: dict[str, Application] = {
    **_family(
        {
            f"convnext_{size.lower()}": f"ConvNeXt{size}"
            for size in ("Tiny", "Small", "Base", "Large", "XLarge")
        },
        "inside",
        num_stages=4,  # the first convolution makes patches of 4 x 4 pixels
    ),
    **_family(
        {f"densenet{n}": f"DenseNet{n}" for n in (121, 169, 201)},
        "torch",
        level_suffixes=("relu",),  # before the transition halves the channels
    ),
    **_family({f"efficientnet_b{n}": f"EfficientNetB{n}" for n in range(8)}, "inside"),
    **_family({f"efficientnetv2_b{n}": f"EfficientNetV2B{n}" for n in range(4)}, "inside"),
    **_family({f"efficientnetv2_{s.lower()}": f"EfficientNetV2{s}" for s in "SML"}, "inside_tf"),
    **_family({"mobilenet": "MobileNet", "mobilenet_v2": "MobileNetV2"}, "tf"),
    **_family(
        {f"mobilenet_v3_{s.lower()}": f"MobileNetV3{s}" for s in ("Small", "Large")}, "inside_tf"
    ),
    **_family({f"resnet{n}": f"ResNet{n}" for n in (50, 101, 152)}, "caffe"),
    **_family(
        {f"resnet{n}v2": f"ResNet{n}V2" for n in (50, 101, 152)},
        "tf",
        level_suffixes=("preact_relu", "post_relu"),  # normalised, with all channels of the block
    ),
    **_family({"vgg16": "VGG16", "vgg19": "VGG19"}, "caffe", strides=(4, 8, 16)),
    "xception": Application("Xception", "tf", strides=(8, 16, 32)),
}


def application_model(name: str, weights: str | None = None) -> keras.Model:
    """Build a network of keras.applications with the maps of its levels as outputs.

    It takes RGB images: the first kernel of networks that were trained on BGR is turned round when
    their weights are loaded.

    Args:
        name: one of `APPLICATIONS`, or such a name and `"_fpn"`. The latter has a map of every
            stride from 4 on, the former one of stride 16.
        weights: None for random ones, or `"imagenet"`.

    Raises:
        OSError: if the weights cannot be fetched; says where to put the file.
    """
    network = name.removesuffix("_fpn")
    application = APPLICATIONS[network]
    function = getattr(keras.applications, application.function)
    model = function(weights=None, include_top=False, input_shape=(None, None, 3))
    if weights == "imagenet":
        _load_imagenet(model, function, network)
    strides = application.strides if name.endswith("_fpn") else (SINGLE_STRIDE,)
    maps = _levels(model, strides, application.level_suffixes)
    return keras.Model(model.input, maps, name=network)


def _levels(model: keras.Model, strides: tuple[int, ...], suffixes: tuple[str, ...]) -> list[Any]:
    """Return for each stride the output of the last layer whose name ends as given, if any does."""
    size = 512
    layers = [layer for layer in model.layers if not isinstance(layer, BETWEEN_LEVELS)]
    graph = keras.Model(model.input, [layer.output for layer in layers])
    specs = keras.tree.flatten(graph.compute_output_spec(keras.KerasTensor((1, size, size, 3))))
    found = []
    for stride in strides:
        pairs = zip(layers, specs, strict=True)
        of_stride = [x for x, spec in pairs if spec.shape[1:3] == (size // stride, size // stride)]
        named = [layer for layer in of_stride if layer.name.endswith(suffixes)]
        found.append((named or of_stride)[-1].output)
    return found


def _load_imagenet(model: keras.Model, function: Any, name: str) -> None:
    try:
        source = function(weights="imagenet", include_top=False, input_shape=(None, None, 3))
    except Exception as error:  # Keras raises a bare Exception for a failed download
        file = re.search(r"([^/\s]+\.h5)", str(error))
        raise OSError(
            f"the ImageNet weights of {name} could not be fetched ({error}). Fetch the file "
            f"{file[1] if file else 'that the message names'} on a machine that can, put it into "
            f"~/.keras/models/, or use backbone_weights=None to start from random weights"
        ) from error
    model.set_weights(source.get_weights())
    if APPLICATIONS[name].preprocessing == "caffe":
        first = next(x for x in model.layers if isinstance(x, keras.layers.Conv2D))
        kernel, *rest = first.get_weights()
        first.set_weights([kernel[:, :, ::-1], *rest])
    if name.startswith("efficientnet_"):
        # With these weights alone Keras divides once more, by the root of the deviation.
        first = next(x for x in model.layers if isinstance(x, keras.layers.Normalization))
        mean, variance, *count = first.get_weights()
        deviation = np.array(IMAGENET_STD, "float32") / 255.0
        first.set_weights([mean, variance * deviation, *count])
