"""Backbones and layers that users bring: each trains a step, is saved, loaded and exported."""

import inspect
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import rcnn_keras as rk
from rcnn_keras.convert.saved_detectors import load_half_precision, save_half_precision
from rcnn_keras.models import RCNN, FasterRCNN, FastRCNN, MaskRCNN, arguments, with_kernels

SMALL = {
    "min_size": 64,
    "max_size": 64,
    "fpn_channels": 8,
    "box_units": 8,
    "rpn_pre_nms_top_n_train": 60,
    "rpn_pre_nms_top_n_test": 40,
    "rpn_post_nms_top_n_train": 30,
    "rpn_post_nms_top_n_test": 10,
    "box_batch_size_per_image": 8,
    "box_detections_per_img": 5,
    "box_score_thresh": 0.0,
}
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype("uint8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return rk.data.draw_shapes(2, size=(64, 64), seed=5, out=tmp_path_factory.mktemp("drawn"))


def small_network(form="list", strides=(4, 8, 16), channels=(4, 6, 8), norm=False):
    """Return a functional model with a map of each stride, coarsest first."""
    images = keras.Input((None, None, 3), name="pixels")
    x, maps, stride = images, [], 1
    while stride < max(strides):
        stride *= 2
        count = channels[strides.index(stride)] if stride in strides else 4
        x = layers.Conv2D(count, 3, strides=2, padding="same", name=f"conv{stride}")(x)
        if norm:
            x = layers.BatchNormalization(name=f"norm{stride}")(x)
        x = layers.ReLU(name=f"relu{stride}")(x)
        if stride in strides:
            maps.insert(0, x)
    outputs = {"list": maps, "dict": {f"level{k}": x for k, x in enumerate(maps)}, "one": maps[0]}
    return keras.Model(images, outputs[form], name="small_network")


def hub_network():
    keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is an extra: rcnn-keras[hub]")
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )


def trained(model, data):
    """Take one step; every loss is finite and some weight of the backbone has changed."""
    before = [np.copy(w) for w in model.backbone.get_weights()]
    model.compile(keras.optimizers.SGD(0.01))
    history = model.fit(rk.data.Batches(data, 2), epochs=1, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    after = model.backbone.get_weights()
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    return model


def eager(model):
    """Tracing takes longer than a small image."""
    model.run_eagerly = True
    return model


def assert_same(found, expected):
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)


def loaded_again(model, folder):
    """Save, load without `custom_objects`, and compare detections and arguments."""
    model.save(folder / "model.keras")
    again = eager(keras.models.load_model(folder / "model.keras"))
    expected = model.detect(IMAGE)[0]
    assert len(expected) > 0
    assert_same(again.detect(IMAGE)[0], expected)
    assert again.get_config() == model.get_config()
    return again


def assert_exports(model, folder, litert=True):
    """A SavedModel and a LiteRT file give the model's detections."""
    expected = model.predict(IMAGE[None], verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the weights are next to untrained
        model.export(folder / "saved_model", "tf_saved_model")
    served = tf.saved_model.load(folder / "saved_model").signatures["serving_default"]
    runs = [served(images=tf.constant(IMAGE[None]))]
    if litert:
        path = model.export(folder / "model.tflite", "litert", size=(64, 64))
        lite = pytest.importorskip("ai_edge_litert.interpreter").Interpreter(str(path))
        lite.allocate_tensors()
        runs.append(lite.get_signature_runner()(images=IMAGE[None]))
    for found in runs:
        np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-3)
        # Scores of a network that is hardly trained are near to each other, so boxes may
        # change places.
        np.testing.assert_allclose(
            np.sort(found["boxes"], axis=1), np.sort(expected["boxes"], axis=1), atol=0.5
        )


BACKBONES = {
    "own_name": lambda: ("resnet18_fpn", {"backbone_width": 0.25}),
    "list_of_maps": lambda: (small_network("list"), {}),
    "dict_of_maps_without_a_pyramid": lambda: (
        small_network("dict", channels=(8, 8, 8)),
        {"feature_pyramid": False},
    ),
    "one_map": lambda: (small_network("one"), {}),
    "keras_hub": lambda: (hub_network(), {}),
    "application": lambda: ("mobilenet_v3_small_fpn", {}),
}
LARGE = (
    *("convnext_tiny_fpn", "densenet121_fpn", "efficientnetv2_b0_fpn", "resnet50v2_fpn", "vgg19"),
    *("efficientnet_lite0_fpn", "efficientnet_lite2"),
)


ALSO_IN_OTHER_TESTS = ("own_name", "one_map", "application")


@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=[pytest.mark.slow] * (k in ALSO_IN_OTHER_TESTS)) for k in BACKBONES],
)
def test_a_detector_on_any_backbone_trains_and_is_loaded_again(kind, drawn, tmp_path):
    backbone, arguments = BACKBONES[kind]()
    model = trained(FasterRCNN(backbone, drawn.classes, **(SMALL | arguments)), drawn)
    loaded_again(model, tmp_path)
    if kind == "list_of_maps":
        assert_exports(model, tmp_path)


@pytest.mark.slow  # LiteRT's converter takes most of a minute for each
@pytest.mark.parametrize("kind", sorted({*BACKBONES} - {"list_of_maps"}))
def test_a_detector_on_any_backbone_is_exported(kind, drawn, tmp_path):
    backbone, arguments = BACKBONES[kind]()
    model = FasterRCNN(backbone, drawn.classes, **(SMALL | arguments))
    assert_exports(model, tmp_path)


@pytest.mark.slow  # large graphs
@pytest.mark.parametrize("name", LARGE)
def test_large_networks_of_keras_applications_are_built(name, drawn, tmp_path):
    model = trained(FasterRCNN(name, drawn.classes, **SMALL), drawn)
    assert_exports(loaded_again(model, tmp_path), tmp_path)


@pytest.mark.parametrize("architecture", [MaskRCNN, FastRCNN])
def test_other_detectors_take_a_model(architecture, drawn):
    arguments = {k: v for k, v in SMALL.items() if not k.startswith("rpn")}
    arguments |= {"roi_pooling": "align"} if architecture is FastRCNN else {}
    model = architecture(small_network(), num_classes=2, **arguments)
    assert model.classes == ("class_0", "class_1")
    again = architecture.from_config(model.get_config())
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: small_network(strides=(4, 16), channels=(4, 8)), "twice the stride"),
        (lambda: keras.Sequential([keras.Input((64, 64, 3)), layers.Conv2D(4, 3)]), "any size"),
        (
            lambda: keras.Sequential(
                [keras.Input((None, None, 3)), layers.Conv2D(4, 3, strides=3, padding="same")]
            ),
            "power of two",
        ),
        (
            lambda: keras.Sequential(
                [keras.Input((None, None, 3)), layers.GlobalAveragePooling2D()]
            ),
            "feature maps",
        ),
        (
            lambda: keras.Model(
                x := keras.Input((None, None, 3)), [layers.MaxPooling2D(4)(x) for _ in range(2)]
            ),
            "two maps of stride 4",
        ),
    ],
)
def test_a_model_without_maps_that_fit_is_refused(make, rule):
    with pytest.raises(ValueError, match=rule):
        FasterRCNN(make(), num_classes=1)


def test_a_pyramid_is_needed_for_maps_of_different_channels():
    with pytest.raises(ValueError, match="equal channels"):
        FasterRCNN(small_network(), num_classes=1, feature_pyramid=False)


def test_preprocessing_follows_the_backbone():
    def normalization(backbone, **arguments):
        layer = FasterRCNN(backbone, num_classes=1, **(SMALL | arguments)).normalize
        return layer.mean, layer.std, layer.padding

    none, one, half = (0.0,) * 3, (1.0,) * 3, (127.5,) * 3
    imagenet = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    assert normalization("mobilenet") == (half, half, none)
    assert normalization("mobilenet_v3_small_fpn") == (none, one, half)
    assert normalization(small_network()) == (*imagenet, none)
    images = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 255)(images)
    begins = keras.Model(images, layers.Conv2D(4, 3, strides=4, padding="same")(x))
    assert normalization(begins) == (none, one, imagenet[0])
    own = normalization(small_network(), image_mean=half, image_std=half)
    assert own == (half, half, none)


def test_padding_is_what_the_network_makes_zero():
    model = FasterRCNN("mobilenet_v3_small_fpn", num_classes=1, **SMALL)
    images = np.full((1, 40, 50, 3), 200.0, "float32")
    out = np.array(model.normalize(images, np.array([[30, 50]], "int32")))
    assert out.shape == (1, 64, 64, 3)
    assert (out[0, :30, :50] == 200).all()
    assert (out[0, 30:] == 127.5).all()
    assert (out[0, :, 50:] == 127.5).all()


def test_stages_of_a_users_model_are_frozen_and_run_twice(drawn):
    model = FasterRCNN(
        small_network(norm=True),
        drawn.classes,
        norm="frozen_batch",
        recompute_stages=2,
        frozen_stages=1,
        **SMALL,
    )
    layer = model.backbone.get_layer
    assert not layer("conv2").trainable
    assert layer("conv4").trainable
    assert not layer("norm4").trainable
    before = layer("norm4").moving_mean.numpy()
    trained(model, drawn)
    np.testing.assert_array_equal(layer("norm4").moving_mean.numpy(), before)
    model.freeze_backbone(0)
    assert layer("conv2").trainable
    assert not layer("norm2").trainable
    with pytest.raises(ValueError, match=r"in 0\.\.4"):
        model.freeze_backbone(5)


def test_layers_that_came_in_frozen_stay_frozen():
    network = small_network()
    network.get_layer("conv8").trainable = False
    model = FasterRCNN(network, num_classes=1, **SMALL)
    assert not model.backbone.get_layer("conv8").trainable
    assert model.backbone.get_layer("conv4").trainable
    again = FasterRCNN.from_config(model.get_config())
    assert not again.backbone.get_layer("conv8").trainable


@pytest.mark.parametrize(
    ("backbone", "arguments", "rule"),
    [
        (lambda: small_network(norm=True), {"recompute_stages": 1}, "norm='frozen_batch'"),
        (lambda: "resnet50v2_fpn", {"recompute_stages": 2, "norm": "frozen_batch"}, "one tensor"),
        (lambda: small_network(), {"recompute_stages": 9}, "at most 4"),
        (lambda: small_network(), {"norm": "group"}, "keeps its own"),
        (lambda: small_network(), {"backbone_weights": "imagenet"}, "brings its weights"),
        (lambda: "convnext_tiny_fpn", {"feature_pyramid": False}, "the name says it"),
        (lambda: "convnext_tinny_fpn", {}, "did you mean 'convnext_tiny_fpn'"),
    ],
)
def test_arguments_that_do_not_fit_a_backbone_are_refused(backbone, arguments, rule):
    with pytest.raises(ValueError, match=rule):
        FasterRCNN(backbone(), num_classes=1, **(SMALL | arguments))


def test_weights_that_cannot_be_fetched_are_named(monkeypatch):
    def fails(weights, **_):
        if weights:
            raise Exception(f"URL fetch failure on https://x/y/{weights}_notop.h5: offline")
        return network(weights=None, include_top=False, input_shape=(None, None, 3))

    network = keras.applications.MobileNet
    monkeypatch.setattr(keras.applications, "MobileNet", fails)
    with pytest.raises(OSError, match=r"imagenet_notop\.h5 on a machine .* ~/\.keras/models"):
        FasterRCNN("mobilenet", num_classes=1, backbone_weights="imagenet")


@keras.saving.register_keras_serializable(package="test_own_parts")
class CornerAnchors(layers.Layer):
    """Two anchors at each position."""

    def __init__(self, sides=(8.0, 24.0), **kwargs):
        super().__init__(**kwargs)
        self.sides = tuple(sides)

    def call(self, images, features):
        anchors = []
        for feature in features:
            height, width = ops.shape(feature)[1:3]
            stride = ops.shape(images)[1] // height
            y, x = ops.meshgrid(ops.arange(height), ops.arange(width), indexing="ij")
            corner = ops.cast(ops.stack([x, y, x, y], axis=-1) * stride, "float32")
            boxes = [corner + np.array([0, 0, side, side], "float32") for side in self.sides]
            anchors.append(ops.reshape(ops.stack(boxes, axis=2), (-1, 4)))
        return anchors

    def compute_output_spec(self, images, features):
        return [keras.KerasTensor((None, 4), "float32") for _ in features]

    def get_config(self):
        return super().get_config() | {"sides": self.sides}


@keras.saving.register_keras_serializable(package="test_own_parts")
class PlainRPN(layers.Layer):
    """One 1x1 convolution for all numbers."""

    def __init__(self, k, **kwargs):
        super().__init__(**kwargs)
        self.k = k
        self.conv = layers.Conv2D(5 * k, 1, kernel_initializer="zeros")

    def call(self, features):
        logits, deltas = [], []
        for feature in features:
            batch = ops.shape(feature)[0]
            both = ops.reshape(self.conv(feature), (batch, -1, 5))
            logits.append(both[..., 0])
            deltas.append(both[..., 1:])
        return logits, deltas

    def get_config(self):
        return super().get_config() | {"k": self.k}


@keras.saving.register_keras_serializable(package="test_own_parts")
class MeanHead(layers.Layer):
    """Means of the features, and two dense layers."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.logits = layers.Dense(num_classes + 1)
        self.deltas = layers.Dense(4 * num_classes, kernel_initializer="zeros")

    def call(self, pooled):
        x = ops.mean(pooled, axis=(2, 3))
        deltas = self.deltas(x)
        shape = (*ops.shape(deltas)[:2], self.num_classes, 4)
        return self.logits(x), ops.reshape(deltas, shape)

    def get_config(self):
        return super().get_config() | {"num_classes": self.num_classes}


@keras.saving.register_keras_serializable(package="test_own_parts")
class SmallMasks(layers.Layer):
    """Logits at the size of the pooled features."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.conv = layers.Conv2D(num_classes, 3, padding="same")

    def call(self, pooled):
        return self.conv(pooled)

    def get_config(self):
        return super().get_config() | {"num_classes": self.num_classes}


@keras.saving.register_keras_serializable(package="test_own_parts")
class CoarseAlign(rk.layers.RoIAlign):
    """RoIAlign of a class of one's own."""


def box_head(num_classes=4):
    return {"box_head": MeanHead(num_classes), "box_units": None}


PARTS = {
    "anchor_generator": lambda: {"anchor_generator": CornerAnchors()},
    "both_of_the_rpn": lambda: {"anchor_generator": CornerAnchors(), "rpn_head": PlainRPN(2)},
    "rpn_head": lambda: {"rpn_head": PlainRPN(3)},
    "box_head": box_head,
    "mask_head": lambda: {"mask_head": SmallMasks(4)},
    "roi_pooling": lambda: {"roi_pooling": CoarseAlign(5, (4, 8, 16))} | box_head(),
}


def all_parts():
    together = ("both_of_the_rpn", "mask_head", "roi_pooling")
    return {name: value for place in together for name, value in PARTS[place]().items()}


PARTS["all"] = all_parts


def layers_of(parts):
    return {name: part for name, part in parts.items() if isinstance(part, layers.Layer)}


@pytest.mark.parametrize(
    "place", [pytest.param(k, marks=[pytest.mark.slow] * (k != "all")) for k in PARTS]
)
def test_custom_layers_train_and_are_loaded_again(place, drawn, tmp_path):
    parts = PARTS[place]()
    model = MaskRCNN(small_network(), drawn.classes, **(SMALL | parts))
    again = loaded_again(trained(model, drawn), tmp_path)
    for name, layer in layers_of(parts).items():
        saved = again.get_config()[name]
        assert saved["class_name"] == type(layer).__name__
    for copy in (with_kernels(again, "portable"), rk.models.fold_batchnorm(again)):
        assert_same(eager(copy).detect(IMAGE)[0], model.detect(IMAGE)[0])
    assert_exports(model, tmp_path, litert=False)


@pytest.mark.parametrize(
    ("parts", "rule"),
    [
        (
            lambda: {"rpn_head": PlainRPN(2)},
            r"shape \(1, 1152\).*with 3, 3, 3, 3 anchors",
        ),
        (
            lambda: {"anchor_generator": CornerAnchors(), "rpn_head": PlainRPN(3)},
            "with 2, 2, 2, 2 anchors at each position",
        ),
        (box_head, r"K \+ 1.*\(1, 2, 4\) .* K = 3 classes; it returns \(1, 2, 5\)"),
        (lambda: {"mask_head": SmallMasks(2)}, r"\(2, 14, 14, 3\) .* returns \(2, 14, 14, 2\)"),
        (
            lambda: {"box_head": layers.Flatten(), "box_units": None},
            r"must return \(logits, deltas",
        ),
        (lambda: {"roi_pooling": CoarseAlign(5, (4, 8, 16))}, r"shape is \(7, 7, 8\)"),
        (lambda: {"roi_pooling": layers.Flatten()}, "roi_pooling cannot be called"),
        (lambda: {"box_head": "mean"}, "box_head must be None or a Keras layer"),
    ],
)
def test_a_layer_that_does_not_fit_is_refused_in_one_line(parts, rule):
    with pytest.raises(ValueError, match=rule) as caught:
        MaskRCNN(small_network(), ["a", "b", "c"], **(SMALL | parts()))
    assert "\n" not in str(caught.value)


@keras.saving.register_keras_serializable(package="test_own_parts")
class ChangedAnchors(CornerAnchors):
    """Anchors that a function changes: `(H * W, k, 4)` in, boxes out."""

    def __init__(self, change, **kwargs):
        super().__init__(**kwargs)
        self.change = change

    def call(self, images, features):
        anchors = super().call(images, features)
        return [self.change(ops.reshape(x, (-1, len(self.sides), 4))) for x in anchors]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda x: ops.reshape(ops.swapaxes(x, 0, 1), (-1, 4)), "row by row, the k of a position"),
        (lambda x: ops.reshape(x[::-1], (-1, 4)), "row by row"),
        (lambda x: ops.reshape(ops.flip(x, -1), (-1, 4)), r"\(x1, y1, x2, y2\) with x1 < x2"),
        (lambda x: ops.reshape(x * np.nan, (-1, 4)), "with x1 < x2"),
        (lambda x: ops.cast(ops.reshape(x, (-1, 4)), "int32"), "boxes of float32.* returns int32"),
        (lambda x: x, r"boxes \(H \* W \* k, 4\) for a map"),
        (lambda x: ops.reshape(x, (-1, 4))[:-1], r"boxes \(H \* W \* k, 4\) for a map"),
    ],
)
def test_anchors_in_another_form_are_refused(change, rule):
    with pytest.raises(ValueError, match=f"anchor_generator must return .*{rule}"):
        FasterRCNN(small_network(), num_classes=1, anchor_generator=ChangedAnchors(change), **SMALL)


def test_anchors_of_positions_in_columns_are_refused():
    class Columns(CornerAnchors):
        def call(self, images, features):
            rows = [ops.transpose(x, (0, 2, 1, 3)) for x in features]
            turned = super().call(ops.transpose(images, (0, 2, 1, 3)), rows)
            return [ops.take(x, np.array([1, 0, 3, 2]), axis=-1) for x in turned]

    with pytest.raises(ValueError, match="row by row"):
        FasterRCNN(small_network(), num_classes=1, anchor_generator=Columns(), **SMALL)


def test_the_rpn_head_has_as_many_anchors_as_an_own_generator_lays():
    generator = CornerAnchors((8.0, 16.0, 32.0, 64.0))
    model = FasterRCNN(small_network(), num_classes=1, anchor_generator=generator, **SMALL)
    assert model.rpn_head.anchors_per_position == 4


def test_levels_with_different_numbers_of_anchors_need_an_own_head():
    class MoreOnTheFirst(CornerAnchors):
        def call(self, images, features):
            first, *rest = super().call(images, features)
            return [ops.repeat(first, 2, axis=0), *rest]

    with pytest.raises(ValueError, match="unless an rpn_head is given; there are 4, 2, 2, 2"):
        FasterRCNN(small_network(), num_classes=1, anchor_generator=MoreOnTheFirst(), **SMALL)
    sizes = ((8, 12), (16,), (32,), (64,))
    with pytest.raises(ValueError, match="unless an rpn_head is given; there are 6, 3, 3, 3"):
        FasterRCNN(small_network(), num_classes=1, anchor_sizes=sizes, **SMALL)


def test_an_own_anchor_generator_sees_all_levels_of_mobilenet():
    generator = CornerAnchors()
    model = FasterRCNN("mobilenet_v3_large_fpn", num_classes=1, anchor_generator=generator, **SMALL)
    assert model.rpn_head.anchors_per_position == 2
    extracted = model.extract_features(
        {"images": IMAGE[None].astype("float32"), "image_sizes": np.array([[64, 64]], "int32")},
        training=False,
    )
    assert [len(x) for x in extracted["anchors"]] == [8, 8, 2]  # 2 x 2, 2 x 2 and 1 x 1 positions


@keras.saving.register_keras_serializable(package="test_own_parts")
class HalfHead(MeanHead):
    """Outputs in half precision."""

    def call(self, pooled):
        return tuple(ops.cast(x, "float16") for x in super().call(pooled))


def test_outputs_in_half_precision_are_refused():
    with pytest.raises(ValueError, match=r"box_head must return logits .* of float32.*float16"):
        FasterRCNN(
            small_network(), num_classes=1, **(SMALL | {"box_head": HalfHead(1), "box_units": None})
        )


@pytest.mark.parametrize(
    ("parts", "arguments"),
    [
        (lambda: {"anchor_generator": CornerAnchors()}, {"anchor_sizes": ((8,),) * 4}),
        (lambda: {"anchor_generator": CornerAnchors()}, {"aspect_ratios": [1.0]}),
        (lambda: {"anchor_generator": CornerAnchors()}, {"anchor_rounding": False}),
        (lambda: {"rpn_head": PlainRPN(3)}, {"rpn_convs": 2}),
        (lambda: {"rpn_head": PlainRPN(3)}, {"rpn_objectness": "softmax"}),
        (box_head, {"box_units": 16}),
        (box_head, {"box_convs": 4}),
        (lambda: {"roi_pooling": CoarseAlign(7, (4, 8, 16))}, {"roi_aligned": True}),
        (lambda: {"roi_pooling": CoarseAlign(7, (4, 8, 16))}, {"roi_sampling_ratio": 1}),
    ],
)
def test_arguments_that_a_layer_makes_unread_are_refused(parts, arguments):
    given, (name,) = parts(), arguments
    layer = next(iter(given))
    rule = rf"^{name} must be .* with this {layer}, which does not read it; received"
    with pytest.raises(ValueError, match=rule):
        FasterRCNN(small_network(), num_classes=4, **(SMALL | given | arguments))
    defaults = {k: v.default for k, v in inspect.signature(FasterRCNN).parameters.items()}
    FasterRCNN(small_network(), num_classes=4, **(SMALL | given | {name: defaults[name]}))


def test_the_masks_of_an_own_roi_pooling_still_have_the_options_of_roi_align():
    pooling = CoarseAlign(7, (4, 8, 16))
    model = MaskRCNN(small_network(), num_classes=1, roi_pooling=pooling, roi_aligned=True, **SMALL)
    assert model.mask_roi_align.aligned
    with pytest.raises(ValueError, match="roi_aligned must be False with this roi_pooling"):
        FastRCNN(small_network("one"), num_classes=1, roi_pooling="pool", roi_aligned=True)


def test_a_layer_with_other_kernels_of_its_own_is_left_as_it_is():
    class Kernels(MeanHead):
        kernels = ("3x3", "5x5")

    head = Kernels(1)
    arguments = SMALL | {"box_head": head, "box_units": None}
    assert FasterRCNN(small_network(), num_classes=1, **arguments).box_head is head


def test_custom_layers_are_kept_in_half_precision(tmp_path):
    def made():
        arguments = SMALL | all_parts()
        return MaskRCNN(small_network(), num_classes=4, **arguments)

    model = made()
    save_half_precision(model, tmp_path)
    made()  # Keras numbers the layers inside of the next ones on
    again = load_half_precision(tmp_path)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype("float16"))


def test_a_custom_layer_without_a_name_in_its_configuration_is_folded():
    @keras.saving.register_keras_serializable(package="test_own_parts")
    class Nameless(MeanHead):
        def get_config(self):
            return {"num_classes": self.num_classes}

    arguments = SMALL | {"box_head": Nameless(1), "box_units": None}
    model = FasterRCNN(small_network(), num_classes=1, **arguments)
    folded = rk.models.fold_batchnorm(model)
    assert folded.box_head.name != model.box_head.name
    for ours, theirs in zip(folded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_class_that_is_not_registered_is_needed_only_to_load_a_file(tmp_path):
    class Unregistered(MeanHead):
        pass

    arguments = SMALL | {"box_head": Unregistered(1), "box_units": None}
    model = FasterRCNN(small_network(), num_classes=1, **arguments)
    assert isinstance(with_kernels(model, "portable").box_head, Unregistered)
    assert isinstance(rk.models.fold_batchnorm(model).box_head, Unregistered)
    model.save(tmp_path / "model.keras")
    given = {"Unregistered": Unregistered}
    again = keras.models.load_model(tmp_path / "model.keras", custom_objects=given)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(TypeError, match="Could not locate class 'Unregistered'"):
        keras.models.load_model(tmp_path / "model.keras")


def test_weights_beside_custom_layers_start_a_detector_of_other_classes(tmp_path):
    source = MaskRCNN(small_network(), num_classes=4, **(SMALL | all_parts()))
    source.save(tmp_path / "source.keras")
    parts = {"box_head": MeanHead(2), "mask_head": SmallMasks(2)}
    model = rk.presets.from_preset(tmp_path / "source.keras", num_classes=2, **parts)
    assert model.classes == ("class_0", "class_1")
    for ours, theirs in (
        (model.backbone, source.backbone),
        (model.rpn_head, source.rpn_head),
        (model.fpn, source.fpn),
    ):
        for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match=r"box_head must return .* K = 2 classes"):
        rk.presets.from_preset(tmp_path / "source.keras", num_classes=2)
    with pytest.raises(ValueError, match="backbone must be left out"):
        rk.presets.from_preset(tmp_path / "source.keras", backbone="resnet18_fpn")


def test_a_custom_head_takes_the_place_of_a_trained_one(tmp_path):
    source = FasterRCNN(small_network(), num_classes=2, rpn_convs=2, **SMALL)
    source.save(tmp_path / "source.keras")
    parts = {"rpn_head": PlainRPN(3), "box_head": MeanHead(2)}
    model = rk.presets.from_preset(tmp_path / "source.keras", **parts)
    assert model.get_config()["rpn_convs"] == 1
    assert model.get_config()["box_units"] is None
    kernel = model.backbone.get_layer("conv4").kernel
    np.testing.assert_array_equal(kernel, source.backbone.get_layer("conv4").kernel)


@pytest.mark.slow  # LiteRT's converter
@pytest.mark.parametrize("place", PARTS)
def test_a_detector_with_a_custom_layer_is_exported(place, drawn, tmp_path):
    model = MaskRCNN(small_network(), drawn.classes, **(SMALL | PARTS[place]()))
    assert_exports(trained(model, drawn), tmp_path)


def test_roi_and_anchor_options_reach_the_operations():
    options = {"roi_aligned": True, "roi_sampling_ratio": 0, "anchor_rounding": False}
    model = MaskRCNN(small_network(), num_classes=1, **(SMALL | options))
    for layer in (model.box_pooling, model.mask_roi_align):
        assert (layer.aligned, layer.sampling_ratio) == (True, 0)
    maps = [np.random.default_rng(0).normal(size=(1, 16, 16, 2)).astype("float32")]
    boxes = np.array([[[3.0, 5.0, 41.0, 60.0]]], "float32")
    layer = rk.layers.RoIAlign(7, (4,), 0, aligned=True)
    expected = rk.ops.roi_align(maps[0], boxes, 7, 1 / 4, 0, aligned=True)
    np.testing.assert_array_equal(layer(maps, boxes), expected)
    (anchors,) = rk.layers.AnchorGenerator(((9,),), (0.5,), rounding=False)(
        np.zeros((1, 4, 4, 3), "float32"), [np.zeros((1, 1, 1, 1), "float32")]
    )
    half = np.array([9 * 2**0.5, 9 * 0.5**0.5]) / 2
    np.testing.assert_allclose(anchors[0], [*-half, *half], rtol=1e-6)


def test_portable_kernels_sample_and_align_as_the_native_ones():
    options = {"roi_aligned": True, "roi_sampling_ratio": 0}
    aligned = eager(FasterRCNN(small_network(), num_classes=1, **options, **SMALL))
    portable = eager(with_kernels(aligned, "portable"))
    assert (portable.box_pooling.aligned, portable.box_pooling.sampling_ratio) == (True, 0)
    assert_same(portable.detect(IMAGE)[0], aligned.detect(IMAGE)[0])


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [
        (FasterRCNN, {"backbone": "resnet18_fpn", "backbone_width": 0.25}),
        (RCNN, {"channels": (2,) * 5, "units": 4}),
    ],
)
def test_the_number_of_classes_may_stand_for_their_names(architecture, arguments):
    model = architecture(num_classes=2, **arguments)
    assert model.classes == ("class_0", "class_1")
    assert architecture.from_config(model.get_config()).classes == model.classes
    assert architecture(classes=["a", "b"], num_classes=2, **arguments).classes == ("a", "b")
    with pytest.raises(ValueError, match="num_classes must be None or the number of classes, 1"):
        architecture(classes=["a"], num_classes=2, **arguments)
    with pytest.raises(ValueError, match="classes must be a list of different names, or num_cl"):
        architecture(**arguments)


TABLES = {
    FasterRCNN: arguments.FASTER_RCNN,
    MaskRCNN: arguments.MASK_RCNN,
    FastRCNN: arguments.FAST_RCNN,
    RCNN: arguments.RCNN,
}


@pytest.mark.parametrize("architecture", TABLES)
def test_every_argument_has_a_rule_and_is_in_the_configuration(architecture):
    names = set(inspect.signature(architecture).parameters) - {"name"}
    assert set(TABLES[architecture]) == names


def test_mask_rcnn_has_the_arguments_of_faster_rcnn():
    ours = dict(inspect.signature(MaskRCNN).parameters)
    assert ours.pop("mask_head").default is None
    assert ours == dict(inspect.signature(FasterRCNN).parameters)
