"""What Keras asks of a layer, asked of each of ours with arguments that are not the defaults."""

import inspect
import json

import keras
import numpy as np
import pytest

import rcnn_keras.layers
from rcnn_keras.layers import (
    AnchorGenerator,
    AnchorSampler,
    BestClassDetectionLayer,
    BoxHead,
    BoxRefinement,
    CentredCanvas,
    DetectionLayer,
    FeaturePyramid,
    FrozenBatchNormalization,
    GroupedConv2D,
    ImageNormalization,
    JointProposalLayer,
    KeypointHead,
    KeypointLayer,
    LocalResponseNorm,
    MaskHead,
    MaskLayer,
    MeanLogits,
    ProposalLayer,
    PyramidCrop,
    RealRoIs,
    RegionFeatures,
    RoIAlign,
    RoIMatcher,
    RoIPool,
    RoISampler,
    RPNHead,
    StatelessDropout,
    StochasticDepth,
    WinogradConv2D,
)

RNG = np.random.default_rng(0)
SIZES = np.array([(60, 70), (64, 50)], np.int32)
IMAGES = RNG.uniform(0, 255, (2, 60, 70, 3)).astype(np.float32)
BOXES = np.sort(RNG.uniform(0, 60, (2, 9, 2, 2)), axis=2).reshape(2, 9, 4).astype(np.float32)
COUNT = np.array([9, 7], np.int32)
TARGETS = {
    "boxes": BOXES[:, :4],
    "labels": np.array([[0, 1, 2, -1], [2, 2, -1, -1]], np.int32),
    "crowd": np.zeros((2, 4), bool),
}
IDS, STEP = np.array([3, 4]), np.array(5)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def trunk():
    inputs = keras.Input((3, 3, 4))
    return keras.Model(inputs, keras.layers.Dense(5)(keras.layers.Flatten()(inputs)))


def map_trunk():
    inputs = keras.Input((3, 3, 4))
    return keras.Model(inputs, keras.layers.Conv2D(5, 1)(inputs))


def crop_network():
    inputs = keras.Input((6, 6, 3))
    pool5 = keras.layers.MaxPooling2D(3)(inputs)
    fc7 = keras.layers.Dense(5)(keras.layers.Flatten()(pool5))
    return keras.Model(inputs, {"pool5": pool5, "fc7": fc7})


# For each layer: constructor arguments, a function that makes them, and call arguments.
EXAMPLES = {
    AnchorGenerator: (
        lambda: {
            "sizes": ((8, 9), (20, 30)),
            "aspect_ratios": (0.3, 2.0),
            "rounding": False,
            "strides": (4, 9),
            "step": 2,
        },
        (IMAGES, [normal(2, 15, 17, 3), normal(2, 7, 8, 3)]),
    ),
    AnchorSampler: (
        lambda: {
            "fg_iou_thresh": 0.6,
            "bg_iou_thresh": 0.2,
            "batch_size_per_image": 6,
            "positive_fraction": 0.4,
            "ignore_border": True,
            "seed": 3,
        },
        (BOXES[0], TARGETS, SIZES, IDS, STEP),
    ),
    BestClassDetectionLayer: (
        lambda: {
            "score_threshold": 0.1,
            "nms_thresh": 0.4,
            "max_detections": 8,
            "box_weights": (4.0, 3.0, 2.0, 1.0),
            "margins": True,
            "kernels": "portable",
        },
        (
            *(normal(2, 9, 4), normal(2, 9, 3, 4), BOXES, COUNT),
            np.array([[-900.0, -900, 900, 900]] * 2, np.float32),  # no box is cut to a line
        ),
    ),
    BoxHead: (
        lambda: {"num_classes": 6, "trunk": trunk(), "class_agnostic": True},
        (normal(2, 9, 3, 3, 4),),
    ),
    BoxRefinement: (
        lambda: {"box_weights": (4.0, 3.0, 2.0, 1.0)},
        (normal(2, 9, 1, 4), BOXES, SIZES),
    ),
    CentredCanvas: (
        lambda: {"mean": (1.0, 2.0, 3.0), "side": 128, "kernels": "portable"},
        (IMAGES, np.array([(60, 70), (44, 50)], np.int32)),
    ),
    DetectionLayer: (
        lambda: {
            "score_threshold": 0.1,
            "nms_thresh": 0.4,
            "max_detections": 8,
            "box_weights": (4.0, 3.0, 2.0, 1.0),
            "margins": True,
            "kernels": "portable",
        },
        (normal(2, 9, 3), normal(2, 9, 3, 4), BOXES, COUNT, SIZES),
    ),
    FeaturePyramid: (
        lambda: {
            "channels": 5,
            "strides": (4, 8, 16),
            "norm": "frozen_batch",
            "winograd": True,
        },
        ([normal(2, 8, 12, 3), normal(2, 4, 6, 4), normal(2, 2, 3, 5)],),
    ),
    FrozenBatchNormalization: (lambda: {"epsilon": 0.1}, (normal(2, 5, 6, 3),)),
    GroupedConv2D: (
        lambda: {"filters": 6, "kernel_size": (3, 3), "groups": 2, "strides": (2, 2)},
        (normal(2, 7, 8, 4),),
    ),
    ImageNormalization: (
        lambda: {
            "mean": (10.0, 20.0, 30.0),
            "std": (2.0, 3.0, 4.0),
            "size_divisor": 16,
            "padding": (1.0, 2.0, 3.0),
            "cut": True,
        },
        (IMAGES, SIZES),
    ),
    JointProposalLayer: (
        lambda: {
            "pre_nms_top_n": (8, 7),
            "post_nms_top_n": (6, 5),
            "nms_thresh": 0.3,
            "box_weights": (4.0, 3.0, 2.0, 1.0),
            "kernels": "portable",
        },
        (
            [normal(2, 9), normal(2, 7)],
            [normal(2, 9, 4), normal(2, 7, 4)],
            [BOXES[0], BOXES[1, :7]],
            SIZES,
        ),
    ),
    KeypointHead: (lambda: {"num_keypoints": 6, "channels": (5, 3)}, (normal(2, 3, 3, 4),)),
    KeypointLayer: (
        lambda: {"scores": "logit", "kernels": "portable"},
        (normal(8, 5, 5, 3), BOXES[:, :4].reshape(8, 4), TARGETS["labels"]),
    ),
    LocalResponseNorm: (
        lambda: {"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0, "within_channel": True},
        (normal(2, 5, 6, 7),),
    ),
    MaskHead: (
        lambda: {"num_classes": 6, "trunk": map_trunk(), "channels": 3},
        (normal(2, 3, 3, 4),),
    ),
    MaskLayer: (lambda: {"kernels": "portable"}, (normal(8, 5, 5, 3), TARGETS["labels"])),
    MeanLogits: (dict, ([normal(2, 9, 4), normal(2, 9, 4)],)),
    ProposalLayer: (
        lambda: {
            "pre_nms_top_n": (8, 7),
            "post_nms_top_n": (6, 5),
            "nms_thresh": 0.3,
            "score_threshold": 0.2,
            "kernels": "portable",
        },
        (
            [normal(2, 9), normal(2, 7)],
            [normal(2, 9, 4), normal(2, 7, 4)],
            [BOXES[0], BOXES[1, :7]],
            SIZES,
        ),
    ),
    PyramidCrop: (
        lambda: {"pooled_size": 3, "strides": (4, 8), "kernels": "portable"},
        ([normal(2, 16, 20, 3), normal(2, 8, 10, 3), normal(2, 4, 5, 3)], BOXES),
    ),
    RealRoIs: (lambda: {"kernels": "portable"}, (BOXES[:, :4], TARGETS["labels"])),
    RegionFeatures: (
        lambda: {
            "network": crop_network(),
            "context": 1,
            "chunk_size": 4,
            "kernels": "portable",
        },
        (IMAGES, SIZES, BOXES, COUNT),
    ),
    RoIAlign: (
        lambda: {
            "pooled_size": 3,
            "strides": (4, 8),
            "sampling_ratio": 1,
            "aligned": True,
            "kernels": "portable",
        },
        ([normal(2, 15, 17, 3), normal(2, 7, 8, 3), normal(2, 4, 4, 3)], BOXES),
    ),
    RoIMatcher: (
        lambda: {"fg_iou_thresh": 0.6, "box_weights": (4.0, 3.0, 2.0, 1.0)},
        (BOXES, np.arange(9) < COUNT[:, None], TARGETS),
    ),
    RoIPool: (
        lambda: {"pooled_size": 3, "stride": 4, "kernels": "portable"},
        ([normal(2, 15, 17, 3)], BOXES),
    ),
    RoISampler: (
        lambda: {
            "fg_iou_thresh": 0.6,
            "bg_iou_thresh": 0.4,
            "batch_size_per_image": 6,
            "positive_fraction": 0.4,
            "box_weights": (4.0, 3.0, 2.0, 1.0),
            "seed": 3,
            "bg_iou_low_thresh": 0.1,
        },
        (BOXES, COUNT, TARGETS, IDS, STEP),
    ),
    RPNHead: (
        lambda: {
            "anchors_per_position": 2,
            "channels": 5,
            "num_convs": 2,
            "winograd": True,
            "objectness": "softmax",
            "strides": 2,
        },
        ([normal(2, 8, 12, 3), normal(2, 4, 6, 3)],),
    ),
    StatelessDropout: (lambda: {"rate": 0.3, "seed": 4}, (normal(5, 7),)),
    StochasticDepth: (lambda: {"rate": 0.3, "seed": 4}, (normal(2, 4, 6, 8),)),
    WinogradConv2D: (lambda: {"filters": 5}, (normal(2, 8, 12, 3),)),
}
each_layer = pytest.mark.parametrize("cls", EXAMPLES, ids=lambda cls: cls.__name__)


def own_parameters(cls):
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return [p for p in parameters if p.kind is not p.VAR_KEYWORD]


def symbolic(x, batched=True):
    """A symbolic tensor for `x` in which batch and middle dimensions are unknown."""
    if x.ndim == 0:
        return keras.KerasTensor((), str(x.dtype))
    keep = x.ndim - 1 if x.ndim in (2, 4) else 1  # boxes and maps keep what the layers read
    return keras.KerasTensor((None,) * keep + x.shape[keep:], str(x.dtype))


def test_that_every_layer_has_an_example():
    ours = {
        value
        for value in vars(rcnn_keras.layers).values()
        if inspect.isclass(value) and issubclass(value, keras.layers.Layer)
    }
    assert ours == set(EXAMPLES)


@each_layer
def test_config_gives_back_every_argument(cls):
    arguments, _ = EXAMPLES[cls]
    arguments = arguments()
    parameters = own_parameters(cls)
    assert {p.name for p in parameters} == set(arguments)
    config = cls(**arguments, name="a_name").get_config()
    assert config["name"] == "a_name"
    for parameter in parameters:
        given = arguments[parameter.name]
        assert given != parameter.default
        if isinstance(given, keras.Model):
            given = keras.saving.serialize_keras_object(given)
        assert config[parameter.name] == given


@each_layer
def test_rebuilt_from_its_config_gives_the_same(cls):
    arguments, inputs = EXAMPLES[cls]
    layer = cls(**arguments(), name="a_name")
    expected = layer(*inputs)
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    clone = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(clone) is cls
    assert clone.name == "a_name"
    clone(*inputs)
    assert [w.path for w in clone.weights] == [w.path for w in layer.weights]
    clone.set_weights(layer.get_weights())
    assert_same(clone(*inputs), expected)


@each_layer
def test_symbolic_shapes_and_types_are_the_real_ones(cls):
    arguments, inputs = EXAMPLES[cls]
    real = keras.tree.flatten(cls(**arguments())(*inputs))
    promised = cls(**arguments())(*keras.tree.map_structure(symbolic, inputs))
    assert keras.tree.flatten(promised) != []
    for spec, value in zip(keras.tree.flatten(promised), real, strict=True):
        assert len(spec.shape) == len(value.shape)
        for a, b in zip(spec.shape, value.shape, strict=True):
            assert a in (None, b)
        assert spec.dtype == keras.backend.standardize_dtype(value.dtype)


@each_layer
def test_unknown_sizes_stay_unknown(cls):
    """No dimension of one example may creep into the graph: the batch stays open."""
    arguments, inputs = EXAMPLES[cls]
    promised = cls(**arguments())(*keras.tree.map_structure(symbolic, inputs))
    for spec in keras.tree.flatten(promised):
        assert spec.shape[0] is None


def assert_same(a, b):
    keras.tree.assert_same_structure(a, b)
    for x, y in zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True):
        np.testing.assert_array_equal(x, y)


CHOOSE = [cls for cls, (_, _) in EXAMPLES.items() if "kernels" in inspect.signature(cls).parameters]


@pytest.mark.parametrize("cls", CHOOSE, ids=lambda cls: cls.__name__)
def test_kernels_of_a_layer_agree(cls):
    """On padding and real rows; what `MaskLayer` gets comes from `RealRoIs` of the same kind."""
    arguments, inputs = EXAMPLES[cls]
    portable = cls(**arguments())
    native = cls(**arguments() | {"kernels": "native"})
    expected_inputs = inputs
    if cls in (MaskLayer, KeypointLayer):
        real = np.flatnonzero(TARGETS["labels"] >= 0)
        expected_inputs = (*(x[real] for x in inputs[:-1]), TARGETS["labels"])
    expected, found = native(*expected_inputs), portable(*inputs)
    if cls is RealRoIs:
        boxes, image = BOXES[:, :4].reshape(-1, 4), np.repeat([0, 1], 4)
        np.testing.assert_array_equal(found[0], boxes)
        np.testing.assert_array_equal(found[1], image)
        real = np.flatnonzero(TARGETS["labels"] >= 0)
        found = [x.numpy()[real] for x in found]
        expected = list(expected)
    if cls is RegionFeatures:
        portable.network.set_weights(native.network.get_weights())
        found = portable(*inputs)
    for ours, theirs in zip(keras.tree.flatten(found), keras.tree.flatten(expected), strict=True):
        largest = max(1, np.abs(theirs).max())  # sums over thousands round as large as their parts
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * largest)
    assert portable.supports_jit
    of_xla = (DetectionLayer, ProposalLayer, CentredCanvas)
    assert native.supports_jit == issubclass(cls, of_xla)


def test_training_counts_of_proposals_are_promised():
    arguments, inputs = EXAMPLES[ProposalLayer]
    for training, count in ((True, 6), (False, 5)):
        symbols = keras.tree.map_structure(symbolic, inputs)
        proposals, _ = ProposalLayer(**arguments())(*symbols, training=training)
        assert proposals.shape == (None, count, 4)
        assert ProposalLayer(**arguments())(*inputs, training=training)[0].shape[1] == count
