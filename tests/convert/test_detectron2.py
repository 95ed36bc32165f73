"""Weights of Detectron2: of which detector they are, where each tensor goes, what is refused."""

import pickle

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import rcnn_keras as rk
from rcnn_keras.cli import main
from rcnn_keras.convert import detectron2
from rcnn_keras.convert.detectron2.architecture import Architecture, architecture_of
from rcnn_keras.convert.detectron2.configuration import read_configuration
from rcnn_keras.convert.detectron2.loading import COCO, DETECTORS
from rcnn_keras.models import CascadeRCNN, FasterRCNN, KeypointRCNN, MaskRCNN
from rcnn_keras.models.arguments import (
    CASCADE_RCNN,
    FASTER_RCNN,
    KEYPOINT_RCNN,
    MASK_RCNN,
    argument_errors,
)
from rcnn_keras.preset_table import PRESETS

RULES = {
    FasterRCNN: FASTER_RCNN,
    MaskRCNN: MASK_RCNN,
    KeypointRCNN: KEYPOINT_RCNN,
    CascadeRCNN: CASCADE_RCNN,
}

CLASSES = ("cat", "dog", "owl")

NARROW = {"backbone_width": 0.25, "norm": "frozen_batch", "box_units": 8, "fpn_channels": 16}

ZOO_MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"


def state_of(model, kind, family):
    """Random tensors, by Detectron2's names, for a model of this package."""
    prefix = "backbone.bottom_up." if family == "fpn" else "backbone."
    known = Architecture(kind, family, len(model.classes), {}, prefix)
    rng = np.random.default_rng(0)
    targets = DETECTORS[kind].targets(model, known, True)
    return {
        name: rng.uniform(0.5, 1.5, target.shape).astype("f4") for name, target in targets.items()
    }


@pytest.fixture(scope="module")
def fpn():
    """A narrow ResNet-18 with a pyramid and masks, and tensors for it."""
    model = MaskRCNN("resnet18_fpn", CLASSES, **NARROW, anchor_rounding=False)
    return model, state_of(model, "mask_rcnn", "fpn")


@pytest.fixture(scope="module")
def loaded(fpn):
    return detectron2.load(fpn[1], classes=CLASSES)


def pickled(path, state, **notes):
    path.write_bytes(pickle.dumps({"model": state, "__author__": "tests"} | notes, 2))
    return path


def test_the_tensors_decide_the_architecture(fpn, loaded):
    assert type(loaded) is MaskRCNN
    config = loaded.get_config()
    assert config["backbone"] == "resnet18_fpn"
    for name, value in NARROW.items():
        assert config[name] == value
    assert [w.shape for w in loaded.weights] == [w.shape for w in fpn[0].weights]


def test_what_no_file_says_is_as_in_the_zoo(loaded):
    config = loaded.get_config()
    assert config["image_mean"] == (123.675, 116.28, 103.53)
    assert config["image_std"] == (1.0, 1.0, 1.0)
    assert config["min_size"] == (640, 672, 704, 736, 768, 800)
    assert loaded.min_size == 800
    assert (config["roi_sampling_ratio"], config["roi_aligned"]) == (0, True)
    assert (config["resizing"], config["anchor_rounding"]) == ("detectron2", False)
    assert (config["rpn_smooth_l1_beta"], config["box_smooth_l1_beta"]) == (0, 0)
    assert config["stride_in_1x1"] is True
    assert config["frozen_stages"] == 2


def test_each_tensor_is_in_its_place(fpn, loaded):
    state = fpn[1]
    stem = loaded.backbone.get_layer("conv1").kernel
    rgb = state["backbone.bottom_up.stem.conv1.weight"][:, ::-1]
    np.testing.assert_array_equal(stem, rgb.transpose(2, 3, 1, 0))
    norm = loaded.backbone.get_layer("layer3_0_downsample_bn")
    shortcut = "backbone.bottom_up.res4.0.shortcut.norm."
    np.testing.assert_array_equal(norm.moving_variance, state[f"{shortcut}running_var"])
    scores = state["roi_heads.box_predictor.cls_score.bias"]
    np.testing.assert_array_equal(loaded.box_head.class_logits.bias, np.roll(scores, 1))
    boxes = state["roi_heads.box_predictor.bbox_pred.weight"]
    np.testing.assert_array_equal(loaded.box_head.box_deltas.kernel, boxes.T)
    first = state["roi_heads.box_head.fc1.weight"].reshape(8, 16, 7, 7).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(
        loaded.box_head.trunk.get_layer("fc6").kernel.value, first.reshape(-1, 8)
    )
    masks = state["roi_heads.mask_head.predictor.bias"]
    np.testing.assert_array_equal(loaded.mask_head.mask_logits.bias, masks)


def test_the_anchors_of_one_map_change_places(fpn):
    """Detectron2 has them by size and then by ratio, this package the other way round."""
    model = FasterRCNN("resnet18", CLASSES, anchor_sizes=((8, 16, 32, 64, 128),), **NARROW)
    state = state_of(model, "faster_rcnn", "c4")
    again = detectron2.load(state, classes=CLASSES)
    assert again.get_config()["backbone"] == "resnet18"
    assert again.get_config()["size_divisor"] == 1
    bias = state["proposal_generator.rpn_head.objectness_logits.bias"].reshape(5, 3)
    np.testing.assert_array_equal(again.rpn_head.objectness.bias, bias.T.reshape(-1))
    deltas = state["proposal_generator.rpn_head.anchor_deltas.bias"].reshape(5, 3, 4)
    np.testing.assert_array_equal(again.rpn_head.deltas.bias, deltas.transpose(1, 0, 2).reshape(-1))
    sizes = np.array([32, 64, 128, 256, 512.0])
    image, maps = np.zeros((1, 37, 41, 3), "f4"), [np.zeros((1, 3, 3, 1), "f4")]
    (anchors,) = again.anchor_generator(image, maps)
    anchors = np.reshape(anchors, (3, 3, 3, 5, 4))
    np.testing.assert_allclose(
        anchors[..., 2] - anchors[..., 0],
        sizes * np.sqrt([[2], [1], [0.5]]) * np.ones((3, 3, 1, 1)),
        rtol=1e-6,
    )
    centre = (anchors[1, 2, ..., :2] + anchors[1, 2, ..., 2:]) / 2  # a stride of 16 apart
    np.testing.assert_allclose(centre, np.broadcast_to([32, 16], centre.shape), rtol=1e-6)


def test_the_whole_model_is_saved_and_loaded(loaded, tmp_path):
    loaded.save(tmp_path / "model.keras")
    again = rk.models.load_detector(tmp_path / "model.keras")
    assert again.get_config() == loaded.get_config()
    for old, new in zip(loaded.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_box_or_mask_for_all_classes_serves_each(fpn):
    state = dict(fpn[1])
    for name in ("box_predictor.bbox_pred", "mask_head.predictor"):
        for kind in ("weight", "bias"):
            key, count = f"roi_heads.{name}.{kind}", 4 if "bbox" in name else 1
            state[key] = state[key][:count]
    model = detectron2.load(state, classes=CLASSES)
    bias = state["roi_heads.box_predictor.bbox_pred.bias"]
    np.testing.assert_array_equal(model.box_head.box_deltas.bias, np.tile(bias, 3))
    np.testing.assert_array_equal(np.ptp(model.mask_head.mask_logits.kernel, axis=-1), 0)


OLDER = {
    "pixel_mean": np.float32([[[102.0]], [[115.0]], [[122.0]]]),
    "pixel_std": np.float32([[[57.0]], [[58.0]], [[59.0]]]),
    "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4), "f4"),
}


def test_the_pixel_statistics_of_older_files_are_followed(fpn, tmp_path):
    path = pickled(tmp_path / "old.pkl", fpn[1] | OLDER)
    config = detectron2.load(path, classes=CLASSES).get_config()
    assert config["image_mean"] == (122.0, 115.0, 102.0)
    assert config["image_std"] == (59.0, 58.0, 57.0)


def names_of(count, kind="faster_rcnn"):
    zoo = {"roi_heads.box_predictor.cls_score.weight": (count + 1, 1024)}
    zoo |= {"roi_heads.box_predictor.bbox_pred.weight": (4 * count, 1024)}
    zoo |= {f"roi_heads.box_head.fc{n}.weight": (1024, 9) for n in (1, 2)}
    zoo |= {"backbone.fpn_output2.weight": (256, 256, 3, 3)}
    zoo |= {"proposal_generator.rpn_head.conv.weight": (256, 256, 3, 3)}
    return zoo


def network_names(depth, groups=1, per_group=64):
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    shapes = {"backbone.bottom_up.stem.conv1.weight": (64, 3, 7, 7)}
    shapes["backbone.bottom_up.stem.conv1.norm.running_var"] = (64,)
    for stage, repeats in enumerate(blocks, start=2):
        for block in range(repeats):
            name = f"backbone.bottom_up.res{stage}.{block}."
            shapes[f"{name}conv2.weight"] = (groups * per_group, per_group, 3, 3)
            shapes[f"{name}conv3.weight"] = (256, 64, 1, 1)
    return shapes


def shapes_as_state(shapes):
    return {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("network", "backbone"),
    [
        ((50,), "resnet50_fpn"),
        ((101,), "resnet101_fpn"),
        ((101, 32, 8), "resnext101_32x8d_fpn"),
        ((50, 32, 4), "resnext50_32x4d_fpn"),
    ],
)
@pytest.mark.parametrize("count", [80, 1203])
def test_depth_groups_and_classes_are_read_from_shapes(network, backbone, count):
    found = architecture_of(shapes_as_state(names_of(count) | network_names(*network)))
    assert found.arguments["backbone"] == backbone
    assert (found.kind, found.family, found.num_classes) == ("faster_rcnn", "fpn", count)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("head.cls_subnet.0.weight", "RetinaNet"),
        ("sem_seg_head.p2.0.weight", "panoptic"),
        ("backbone.bottom_up.res3.0.conv2_offset.weight", "deformable"),
        ("rpn.head.cls_logits.weight", "convert.torchvision loads"),
        ("backbone.layer1.0.conv1.weight", "MMDetection"),
    ],
)
def test_a_file_of_another_model_is_named(fpn, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        detectron2.load({name: np.zeros(1, "f4")} | fpn[1])
    assert name in str(caught.value)


def without(state, name):
    return {key: values for key, values in state.items() if key != name}


FC1 = "roi_heads.box_head.fc1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "backbone.fpn_lateral4.bias"), "missing: backbone.fpn_lateral4.bias"),
        (lambda s: s | {"extra.weight": s[FC1]}, "not in the model: extra.weight"),
        (lambda s: s | {FC1: s[FC1][:, :-1]}, f"another shape: {FC1}"),
        (lambda s: s | {FC1: s[FC1] * np.nan}, f"finite floating-point numbers: {FC1}"),
        (lambda s: without(s, FC1), f"the tensor {FC1} is missing"),
        (
            lambda s: without(s, "roi_heads.box_predictor.cls_score.weight"),
            "cls_score.weight is mi",
        ),
        (lambda s: {"a": s[FC1]}, "no detector of Detectron2"),
    ],
)
def test_tensors_that_do_not_fit_are_named(fpn, change, message):
    with pytest.raises(ValueError, match="the weights: ") as caught:
        detectron2.load(change(fpn[1]), classes=CLASSES)
    assert message in str(caught.value)


def test_a_class_list_of_another_length_is_refused(fpn):
    with pytest.raises(ValueError, match="classes must be 3 names; received 2"):
        detectron2.load(fpn[1], classes=["cat", "dog"])


def test_classes_have_cocos_names_where_there_are_80():
    assert len(COCO) == 80
    assert (COCO[0], COCO[79]) == ("person", "toothbrush")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("COCO-InstanceSegmentation/mask_rcnn_R50_FPN_3x", f"did you mean '{ZOO_MASK}'"),
        ({"MODEL.ROI_HEADS.SCORE_TRESH_TEST": 0.1}, "did you mean MODEL.ROI_HEADS.SCORE_THRESH_T"),
        ({"MODEL": {"RPN": {"NMS_TRESH": 0.5}}}, "did you mean MODEL.RPN.NMS_THRESH"),
        ({"MODEL.ANCHOR_GENERATOR.OFFSET": 0.5}, "has no counterpart here"),
        ({"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIPool"}, "'ROIAlign' or 'ROIAlignV2'"),
        ({"MODEL.RPN.NMS_THRESH": "high"}, "is not of the form of 0.7"),
        ({"MODEL.META_ARCHITECTURE": "RetinaNet"}, "only 'GeneralizedRCNN'"),
    ],
)
def test_unknown_keys_and_names_are_refused_with_the_nearest(config, message):
    with pytest.raises(ValueError, match=r"config|COCO") as caught:
        read_configuration(config)
    assert message in str(caught.value)


def test_a_configuration_that_contradicts_the_tensors_is_refused(fpn):
    with pytest.raises(ValueError, match="the weights") as caught:
        detectron2.load(fpn[1], ZOO_MASK)
    assert "MODEL.RESNETS.DEPTH is 50, and 18 by the tensors" in str(caught.value)
    assert "MODEL.ROI_HEADS.NUM_CLASSES is 80, and 3 by the tensors" in str(caught.value)


def test_files_build_on_each_other(tmp_path):
    (tmp_path / "base.yaml").write_text(
        "_BASE_: ../Base-RCNN-FPN.yaml\nMODEL:\n  RPN: {NMS_THRESH: 0.5}\nSOLVER: {BASE_LR: 0.1}\n"
    )
    path = tmp_path / "own.yaml"
    path.write_text(
        '_BASE_: "base.yaml"\nINPUT:\n  MIN_SIZE_TRAIN: (300, 400)\nMODEL: {MASK_ON: True}\n'
    )
    settings = read_configuration(path)
    assert settings["MODEL.RPN.NMS_THRESH"] == 0.5
    assert settings["INPUT.MIN_SIZE_TRAIN"] == [300, 400]
    assert settings["MODEL.RPN.PRE_NMS_TOPK_TEST"] == 1000  # of the zoo's base
    path.write_text("_BASE_: missing.yaml\n")
    with pytest.raises(ValueError, match=r"builds on missing\.yaml, which is not at"):
        read_configuration(path)
    path.write_text("_BASE_: own.yaml\n")
    with pytest.raises(ValueError, match="files build on each other"):
        read_configuration(path)
    path.write_text("MODEL: !!python/object/apply:os.system ['touch hostile']\n")
    with pytest.raises(ValueError, match="not a YAML file of plain values"):
        read_configuration(path)


def test_settings_reach_the_model(fpn):
    config = {
        "MODEL": {
            "ROI_HEADS": {"SCORE_THRESH_TEST": 0.25},
            "ROI_BOX_HEAD": {"SMOOTH_L1_BETA": 0.5, "POOLER_TYPE": "ROIAlign"},
            "ROI_MASK_HEAD": {"POOLER_TYPE": "ROIAlign"},
            "ANCHOR_GENERATOR": {"SIZES": [[8], [16], [32], [64], [128]]},
            "RPN": {"LOSS_WEIGHT": 2.0},
        },
        "INPUT.MIN_SIZE_TEST": 96,
        "TEST.DETECTIONS_PER_IMAGE": 7,
    }
    with pytest.warns(UserWarning, match="not followed: MODEL.RPN.LOSS_WEIGHT=2.0"):
        model = detectron2.load(fpn[1], config, box_nms_thresh=0.4)
    config = model.get_config()
    assert (config["box_score_thresh"], config["box_nms_thresh"]) == (0.25, 0.4)
    assert (config["roi_aligned"], config["box_smooth_l1_beta"]) == (False, 0.5)
    assert (config["min_size"], config["box_detections_per_img"]) == (96, 7)
    assert config["anchor_sizes"][0] == (8,)


@pytest.mark.parametrize("name", [n for n, p in PRESETS.items() if p.project == "detectron2"])
def test_the_presets_of_the_zoo_have_sound_arguments(name):
    preset = PRESETS[name]
    build, arguments = detectron2.zoo_arguments(preset.network)
    assert argument_errors(arguments, RULES[build]) == {}
    assert preset.url.startswith("https://dl.fbaipublicfiles.com/detectron2/")
    assert len(preset.digest) == 6
    assert int(preset.digest, 16) > 0
    assert preset.licence == "CC-BY-SA-3.0"
    assert (preset.mask_ap is not None) == (build in (MaskRCNN, CascadeRCNN))
    assert (preset.keypoint_ap is not None) == (build is KeypointRCNN)


def test_caffe2s_backbones_are_loaded(tmp_path):
    model = FasterRCNN("resnet18_fpn", CLASSES, **NARROW)
    state = state_of(model, "faster_rcnn", "fpn")
    start, blobs = "backbone.bottom_up.", {"fc1000_w": np.zeros((9, 9), "f4")}
    kinds = {"norm.weight": "bn_s", "norm.bias": "bn_b", "weight": "w"}
    parts = {"conv1": "branch2a", "conv2": "branch2b", "shortcut": "branch1"}
    for name, values in state.items():
        if name.startswith(start) and "running" not in name:
            module, _, kind = name.removeprefix(start).replace(".norm.", " norm.").rpartition(" ")
            if not module:
                module, _, kind = kind.rpartition(".")
            *block, part = module.split(".")
            blob = "conv1" if block == ["stem"] else "_".join([*block, parts[part]])
            blob = f"res_{blob}" if block == ["stem"] and "norm" in kind else blob
            blobs[f"{blob}_{kinds[kind]}"] = values
    path = tmp_path / "R-18.pkl"
    path.write_bytes(pickle.dumps({"blobs": blobs}, 2))
    detectron2.load_backbone(model, path)
    stem = state[f"{start}stem.conv1.weight"][:, ::-1].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.backbone.get_layer("conv1").kernel, stem)
    norm = model.backbone.get_layer("layer4_1_bn2")
    np.testing.assert_array_equal(norm.gamma, state[f"{start}res5.1.conv2.norm.weight"])
    np.testing.assert_allclose(norm.moving_variance.value + norm.epsilon, 1)
    del blobs["res4_0_branch1_w"]
    path.write_bytes(pickle.dumps({"blobs": blobs}, 2))
    with pytest.raises(ValueError, match=r"missing: res4\.0\.shortcut\.weight"):
        detectron2.load_backbone(model, path)


def test_the_command_writes_a_detector(fpn, tmp_path):
    path = pickled(tmp_path / "model_final.pkl", fpn[1])
    (tmp_path / "classes.txt").write_text("cat\ndog\nowl\n")
    out = tmp_path / "out.keras"
    command = ["convert", str(path), "--out", str(out)]
    names = ["--classes", str(tmp_path / "classes.txt")]
    result = CliRunner().invoke(main, [*command, *names])
    assert result.output == f"{out}: MaskRCNN of 3 classes\n"
    assert rk.models.load_detector(out).classes == CLASSES
    assert "--overwrite replaces it" in CliRunner().invoke(main, command).output
    wrong = CliRunner().invoke(main, [*command, "--overwrite", "--config", "COCO-Detection/x"])
    assert "name of Detectron2's zoo" in wrong.output
    path.write_bytes(path.read_bytes()[:1000])
    assert "damaged or cut off" in CliRunner().invoke(main, [*command, "--overwrite"]).output
    path.write_bytes(b"GIF89a")
    assert "neither a pickle" in CliRunner().invoke(main, [*command, "--overwrite"]).output


def test_a_layer_of_ones_own_is_refused(fpn):
    generator = rk.layers.AnchorGenerator(((8,),) * 5)
    with pytest.raises(ValueError, match="anchor_generator"):
        detectron2.load(fpn[1], anchor_generator=generator, anchor_sizes=None, anchor_rounding=True)


def test_models_of_keras_alone_are_left_alone():
    """A group norm of Keras' own is converted like this package's."""
    layer = keras.layers.GroupNormalization(4)
    layer.build((None, 2, 2, 8))
    assert set(rk.convert.weights.weight_targets(layer, "n")) == {"n.weight", "n.bias"}


@pytest.mark.parametrize(
    ("build", "kind", "options"),
    [
        (KeypointRCNN, "keypoint_rcnn", {"num_keypoints": 4, "keypoint_layers": (8, 8)}),
        (CascadeRCNN, "cascade_rcnn", {"masks": True}),
        (CascadeRCNN, "cascade_rcnn", {"masks": False}),
    ],
)
def test_keypoints_and_cascades_are_read(build, kind, options):
    model = build("resnet18_fpn", CLASSES, **NARROW, **options)
    state = state_of(model, kind, "fpn")
    again = detectron2.load(state, classes=CLASSES)
    assert type(again) is build
    assert {name: again.get_config()[name] for name in options} == options
    assert [w.shape for w in again.weights] == [w.shape for w in model.weights]
    if build is CascadeRCNN:
        bias = state["roi_heads.box_predictor.2.cls_score.bias"]
        np.testing.assert_array_equal(again.box_heads[2].class_logits.bias, np.roll(bias, 1))
