"""Torchvision's tensors by their names in our models; the tables beside torchvision's builders.

That the models compute what torchvision's compute is for tests/parity to show.
"""

import numpy as np
import pytest

from rcnn_keras.convert.torchvision import COCO_CLASSES, DETECTORS, load, load_backbone
from rcnn_keras.models import FasterRCNN, MaskRCNN
from rcnn_keras.presets import PRESETS

SMALL = {"backbone": "resnet18_fpn", "fpn_channels": 8, "box_units": 8, "min_size": 64}


def small_state(masks=False, counters=True, count=3, seed=0):
    """A state dict of torchvision's names for a small detector of 3 classes on a ResNet-18."""
    rng = np.random.default_rng(seed)
    shapes = {"backbone.body.conv1.weight": (64, 3, 7, 7)}
    norms = {"backbone.body.bn1": 64}
    for stage, (before, channels) in enumerate([(64, 64), (64, 128), (128, 256), (256, 512)], 1):
        for block in range(2):
            name = f"backbone.body.layer{stage}.{block}"
            width = before if block == 0 else channels
            shapes[f"{name}.conv1.weight"] = (channels, width, 3, 3)
            shapes[f"{name}.conv2.weight"] = (channels, channels, 3, 3)
            norms |= {f"{name}.bn1": channels, f"{name}.bn2": channels}
            if width != channels:
                shapes[f"{name}.downsample.0.weight"] = (channels, width, 1, 1)
                norms[f"{name}.downsample.1"] = channels
    for level, channels in enumerate([64, 128, 256, 512]):
        shapes[f"backbone.fpn.inner_blocks.{level}.0.weight"] = (8, channels, 1, 1)
        shapes[f"backbone.fpn.layer_blocks.{level}.0.weight"] = (8, 8, 3, 3)
    shapes |= {
        "rpn.head.conv.0.0.weight": (8, 8, 3, 3),
        "rpn.head.cls_logits.weight": (3, 8, 1, 1),
        "rpn.head.bbox_pred.weight": (12, 8, 1, 1),
        "roi_heads.box_head.fc6.weight": (8, 8 * 49),
        "roi_heads.box_head.fc7.weight": (8, 8),
        "roi_heads.box_predictor.cls_score.weight": (count + 1, 8),
        "roi_heads.box_predictor.bbox_pred.weight": (4 * count + 4, 8),
    }
    if masks:
        shapes |= {f"roi_heads.mask_head.{n}.0.weight": (8, 8, 3, 3) for n in range(4)}
        shapes["roi_heads.mask_predictor.conv5_mask.weight"] = (8, 8, 2, 2)
        shapes["roi_heads.mask_predictor.mask_fcn_logits.weight"] = (count + 1, 8, 1, 1)
    for name in [n for n in shapes if ".body." not in n]:
        shapes[name.replace("weight", "bias")] = shapes[name][:1]
    for name, channels in norms.items():
        keys = ("weight", "bias", "running_mean", "running_var")
        shapes |= {f"{name}.{key}": (channels,) for key in keys}
    state = {name: rng.uniform(0.1, 1, shape).astype("f4") for name, shape in shapes.items()}
    if counters:
        state |= {f"{name}.num_batches_tracked": np.array(1) for name in norms}
    return state


# Read from torchvision's builders, not from our table.
BUILDERS = {
    "min_size": 800,
    "max_size": 1333,
    "head_norm": None,
    "rpn_convs": 1,
    "box_convs": 0,
    "rpn_score_thresh": 0.0,
    "rpn_pre_nms_top_n_train": 2000,
    "rpn_pre_nms_top_n_test": 1000,
    "rpn_post_nms_top_n_train": 2000,
    "rpn_post_nms_top_n_test": 1000,
    "rpn_nms_thresh": 0.7,
    "rpn_fg_iou_thresh": 0.7,
    "rpn_bg_iou_thresh": 0.3,
    "rpn_batch_size_per_image": 256,
    "rpn_positive_fraction": 0.5,
    "box_score_thresh": 0.05,
    "box_nms_thresh": 0.5,
    "box_detections_per_img": 100,
    "box_fg_iou_thresh": 0.5,
    "box_bg_iou_thresh": 0.5,
    "box_batch_size_per_image": 512,
    "box_positive_fraction": 0.25,
    "bbox_reg_weights": (10.0, 10.0, 5.0, 5.0),
    "box_smooth_l1_beta": 1 / 9,
}
BUILDERS_V2 = BUILDERS | {"head_norm": "batch", "rpn_convs": 2, "box_convs": 4}
BUILDERS_MOBILE = BUILDERS | {"rpn_score_thresh": 0.05}
BUILDERS_320 = BUILDERS_MOBILE | {
    "min_size": 320,
    "max_size": 640,
    "rpn_pre_nms_top_n_test": 150,
    "rpn_post_nms_top_n_test": 150,
}


# The three that are not slow have all the layers of the others.
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        pytest.param("fasterrcnn_resnet50_fpn", BUILDERS, marks=pytest.mark.slow),
        pytest.param("fasterrcnn_resnet50_fpn_v2", BUILDERS_V2, marks=pytest.mark.slow),
        pytest.param("fasterrcnn_mobilenet_v3_large_fpn", BUILDERS_MOBILE, marks=pytest.mark.slow),
        ("fasterrcnn_mobilenet_v3_large_320_fpn", BUILDERS_320),
        ("maskrcnn_resnet50_fpn", BUILDERS),
        ("maskrcnn_resnet50_fpn_v2", BUILDERS_V2),
    ],
)
def test_every_tensor_has_a_target_in_a_model_of_torchvisions_settings(name, settings, state_of):
    state = state_of(name)
    model = load(name, state)
    assert isinstance(model, MaskRCNN) == name.startswith("mask")
    assert model.classes == COCO_CLASSES
    config = model.get_config()
    assert {key: config[key] for key in settings} == settings
    assert model.anchor_sampler.ignore_border is False
    assert (config["norm"], config["frozen_stages"]) == ("batch", 0)
    constants = {
        float(values.flat[0]): tensor
        for tensor, values in state.items()
        if not tensor.endswith("num_batches_tracked")
    }
    found = []
    for variable in model.weights:
        values = np.unique(variable)
        assert len(values) == 1, variable.path
        found.append(constants[float(values[0])])
    assert sorted(found) == sorted(constants.values())


def test_the_table_has_all_of_torchvisions_builders():
    published = {
        p.network for p in PRESETS.values() if p.project == "torchvision" and p.num_classes
    }
    assert published == set(DETECTORS)


def test_coco_classes_are_named_by_their_numbers():
    assert len(COCO_CLASSES) == 90
    assert COCO_CLASSES[0] == "person"
    assert COCO_CLASSES[11] == "N/A 12"
    assert COCO_CLASSES[89] == "toothbrush"
    assert COCO_CLASSES[COCO_CLASSES.index("teddy bear")] == COCO_CLASSES[88 - 1]
    assert sum(name.startswith("N/A") for name in COCO_CLASSES) == 10


class TestSmall:
    def test_arguments_and_classes_are_those_given(self):
        model = load("fasterrcnn_resnet50_fpn", small_state(), box_batch_size_per_image=64, **SMALL)
        assert model.classes == ("class_0", "class_1", "class_2")
        assert model.get_config()["box_batch_size_per_image"] == 64
        named = load("fasterrcnn_resnet50_fpn", small_state(), classes=["a", "b", "c"], **SMALL)
        assert named.classes == ("a", "b", "c")
        with pytest.raises(ValueError, match=r"3 names .* received 2"):
            load("fasterrcnn_resnet50_fpn", small_state(), classes=["a", "b"], **SMALL)

    def test_the_outputs_of_the_background_are_dropped(self):
        state = small_state(masks=True)
        model = load("maskrcnn_resnet50_fpn", state, **SMALL)
        predictor = "roi_heads.box_predictor"
        bias = state[f"{predictor}.bbox_pred.bias"]
        np.testing.assert_array_equal(model.box_head.box_deltas.bias, bias[4:])
        bias = state[f"{predictor}.cls_score.bias"]
        np.testing.assert_array_equal(model.box_head.class_logits.bias, bias)
        bias = state["roi_heads.mask_predictor.mask_fcn_logits.bias"]
        np.testing.assert_array_equal(model.mask_head.mask_logits.bias, bias[1:])

    def test_older_tensor_names_are_accepted(self):
        state = small_state(masks=True)
        older = {}
        for name, values in state.items():
            name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
            if "_blocks" in name:
                name = name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
            for n in range(4):
                name = name.replace(f"mask_head.{n}.0.", f"mask_head.mask_fcn{n + 1}.")
            older[name] = values
        assert len(set(older) - set(state)) == 16 + 2 + 8
        models = [load("maskrcnn_resnet50_fpn", s, **SMALL) for s in (state, older)]
        for ours, theirs in zip(*(m.get_weights() for m in models), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        with pytest.raises(ValueError, match="is there under an older name"):
            load("maskrcnn_resnet50_fpn", state | older, **SMALL)

    def test_a_file_without_counters_gives_frozen_batch_norm(self):
        state = small_state(counters=False)
        model = load("fasterrcnn_resnet50_fpn", state, **SMALL)
        config = model.get_config()
        assert (config["norm"], config["frozen_stages"]) == ("frozen_batch", 2)
        trained = {v.path.split("/")[-2] for v in model.backbone.trainable_variables}
        assert "layer2_0_conv1" in trained
        assert not {"conv1", "bn1", "layer1_0_conv1", "layer2_0_bn1"} & trained
        model = load("fasterrcnn_resnet50_fpn", state, frozen_stages=4, **SMALL)
        assert model.get_config()["frozen_stages"] == 4

    @pytest.mark.parametrize("norm", ["batch", "frozen_batch"])
    @pytest.mark.parametrize(("epsilon", "acts"), [(0.0, 0.0), (1e-3, 1e-3), (None, 1e-5)])
    def test_the_gains_compensate_for_the_files_epsilon(self, epsilon, acts, norm):
        state = small_state(counters=False)
        variance = np.geomspace(1e-12, 1, 64).astype("f4")
        state["backbone.body.bn1.running_var"] = variance
        model = load("fasterrcnn_resnet50_fpn", state, epsilon=epsilon, norm=norm, **SMALL)
        x = np.random.default_rng(1).normal(size=(1, 2, 2, 64)).astype("f4")
        keys = ("weight", "bias", "running_mean")
        gain, shift, mean = (state[f"backbone.body.bn1.{k}"].astype("f8") for k in keys)
        want = (x - mean) / np.sqrt(variance.astype("f8") + acts) * gain + shift
        layer = model.backbone.get_layer("bn1")
        error = np.abs(layer(x) - want) / np.abs(want).max((0, 1, 2))
        assert error.max() < 1e-5

    def test_the_published_resnet50_has_no_epsilon(self, state_of):
        state = {k: v for k, v in state_of("fasterrcnn_resnet50_fpn").items() if "num_b" not in k}
        model = load("fasterrcnn_resnet50_fpn", state)
        variance = state["backbone.body.bn1.running_var"].astype("f8")
        gain = state["backbone.body.bn1.weight"] * np.sqrt((variance + 1e-5) / variance)
        found = model.backbone.get_layer("bn1").gamma
        np.testing.assert_allclose(found, gain, rtol=1e-7)
        assert (np.array(found) != state["backbone.body.bn1.weight"]).all()

    def test_a_variance_of_zero_without_epsilon_is_refused(self):
        state = small_state(counters=False)
        state["backbone.body.layer1.0.bn1.running_var"][3] = 0
        with pytest.raises(ValueError, match=r"layer1\.0\.bn1\.running_var has a variance"):
            load("fasterrcnn_resnet50_fpn", state, epsilon=0.0, **SMALL)

    def test_an_epsilon_for_trained_batch_norm_is_refused(self):
        with pytest.raises(ValueError, match=r"epsilon is for frozen batch norm; received 0\.0"):
            load("fasterrcnn_resnet50_fpn", small_state(), epsilon=0.0, **SMALL)

    def test_a_huge_expanded_tensor_of_another_shape_is_refused(self):
        state = small_state(counters=False)
        for key in ("running_var", "weight"):
            name = f"backbone.body.layer1.0.bn1.{key}"
            state[name] = np.broadcast_to(np.ones((), "f4"), (1 << 45,))
        with pytest.raises(ValueError, match="of another shape: backbone"):
            load("fasterrcnn_resnet50_fpn", state, **SMALL)

    def test_all_mismatched_tensors_are_in_one_error(self):
        state = small_state()
        del state["backbone.body.layer2.0.conv1.weight"]
        state["rpn.head.cls_logits.weight"] = np.ones((5, 8, 1, 1), "f4")
        state["roi_heads.keypoint_head.0.weight"] = np.ones(3, "f4")
        with pytest.raises(ValueError, match="do not fit") as caught:
            load("fasterrcnn_resnet50_fpn", state, **SMALL)
        message = str(caught.value)
        assert "missing: backbone.body.layer2.0.conv1.weight" in message
        assert "not in the model: roi_heads.keypoint_head.0.weight" in message
        assert "rpn.head.cls_logits.weight (5, 8, 1, 1), not (3, 8, 1, 1)" in message

    def test_tensors_of_a_mask_head_are_refused_by_a_faster_rcnn(self):
        with pytest.raises(ValueError, match=r"not in the model.*mask_predictor\.conv5_mask"):
            load("fasterrcnn_resnet50_fpn", small_state(masks=True), **SMALL)

    @pytest.mark.parametrize(
        ("name", "arguments", "message"),
        [
            ("fasterrcnn_resnet50", {}, "did you mean 'fasterrcnn_resnet50_fpn'"),
            ("fasterrcnn_resnet50_fpn", {"norm": None}, "received None"),
            ("fasterrcnn_resnet50_fpn", {"norm": "group"}, "received 'group'"),
            ("fasterrcnn_resnet50_fpn", {"backbone": "resnet18"}, "resnet18 has none"),
            ("fasterrcnn_resnet50_fpn", {"min_size": 0}, "min_size"),
        ],
    )
    def test_wrong_arguments_are_refused(self, name, arguments, message):
        with pytest.raises(ValueError, match=message):
            load(name, small_state(), **SMALL | arguments)

    @pytest.mark.parametrize("values", [None, np.ones((2, 2), "f4"), np.ones(1, "f4")])
    def test_a_state_dict_without_class_outputs_is_refused(self, values):
        state = small_state()
        name = "roi_heads.box_predictor.cls_score.bias"
        state[name] = values
        if values is None:
            del state[name]
        with pytest.raises(ValueError, match=r"not a detector of torchvision: .*cls_score\.bias"):
            load("fasterrcnn_resnet50_fpn", state)

    def test_a_detector_is_loaded_from_a_file(self, writer, zipped):
        state = small_state()
        state = {name: values for name, values in state.items() if values.dtype == "f4"}
        items = {name: writer.whole(v, str(n)) for n, (name, v) in enumerate(state.items())}
        path = zipped(writer.dictionary({"model": writer.dictionary(items)}), writer.storages)
        models = [load("fasterrcnn_resnet50_fpn", weights, **SMALL) for weights in (path, state)]
        for ours, theirs in zip(*(m.get_weights() for m in models), strict=True):
            np.testing.assert_array_equal(ours, theirs)


class TestLoadBackbone:
    @pytest.mark.parametrize(
        ("backbone", "classifier"),
        [
            ("resnet18_fpn", "resnet18"),
            ("resnet18", "resnet18"),
            ("mobilenet_v3_large_fpn", "mobilenet_v3_large"),
        ],
    )
    def test_every_tensor_except_the_classifiers_is_used(self, backbone, classifier, state_of):
        state = state_of(classifier)
        model = FasterRCNN(backbone, ["a"], fpn_channels=8, box_units=8)
        load_backbone(model, state)
        layers = list(model.backbone.layers)
        if not backbone.endswith("_fpn"):
            layers += model.box_head.trunk.layers
        found = sorted(float(v) for layer in layers for w in layer.weights for v in np.unique(w))
        wanted = sorted(
            float(values.flat[0])
            for name, values in state.items()
            if not name.startswith(("fc.", "classifier.")) and "num_batches" not in name
        )
        assert found == wanted

    def test_values_are_assigned_to_the_backbone(self, state_of):
        rng = np.random.default_rng(0)
        state = {
            name: rng.uniform(size=values.shape).astype("f4")
            for name, values in state_of("resnet18").items()
            if "num_batches" not in name
        }
        model = FasterRCNN("resnet18_fpn", ["a"], norm="frozen_batch", fpn_channels=8, box_units=8)
        load_backbone(model, state)
        kernel = model.backbone.get_layer("layer3_0_downsample_conv").kernel
        want = state["layer3.0.downsample.0.weight"].transpose(2, 3, 1, 0)
        np.testing.assert_array_equal(kernel, want)
        shift = model.backbone.get_layer("layer3_0_downsample_bn").beta
        np.testing.assert_array_equal(shift, state["layer3.0.downsample.1.bias"])

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"backbone": "resnet34_fpn"}, r"missing: layer1_2|missing: layer1\.2"),
            ({"norm": "group"}, "received 'group'"),
            ({"image_std": (1.0, 1.0, 1.0)}, "image_std"),
        ],
    )
    def test_models_unlike_torchvisions_are_refused(self, arguments, message, state_of):
        config = {"backbone": "resnet18_fpn", "fpn_channels": 32, "box_units": 8} | arguments
        with pytest.raises(ValueError, match=message):
            load_backbone(FasterRCNN(classes=["a"], **config), state_of("resnet18"))
