"""ImageNet weights of keras.applications for the backbones that have the same architecture."""

import keras

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
