"""Configurations: every error at once, in the user's words; defaults; overrides; round trips."""

import inspect
from pathlib import Path

import pytest
import yaml

from rcnn_keras.data.augmentation import RandomFlip, ScaleJitter
from rcnn_keras.models import FasterRCNN
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.document import ConfigurationError, read_document
from rcnn_keras.runs.schema import NO_KEYS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

GOOD = """
model: {architecture: faster_rcnn, min_size: 240, anchor_sizes: [[8], [16], [32], [64], [128]]}
data:
  format: coco
  train: {annotations: a.json, images: pictures}
  val: [{annotations: /elsewhere/b.json}, {annotations: c.json}]
  augment:
    - RandomFlip: {horizontal: true, vertical: true}
    - ScaleJitter: {low: 0.8}
optimizer: {name: sgd, learning_rate: 1e-2}
training: {epochs: 12}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text)
        return path

    return write


def errors_of(path, overrides=()):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path, overrides)
    return caught.value.errors


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_in_configs_is_valid(path):
    load_configuration(path)


def test_defaults_are_those_of_the_constructors(write):
    configuration = load_configuration(write(GOOD))
    parameters = inspect.signature(FasterRCNN).parameters
    arguments = configuration.model_arguments
    assert set(arguments) == set(parameters) - set(NO_KEYS)
    given = {"min_size": 240, "anchor_sizes": ((8,), (16,), (32,), (64,), (128,))}
    for name, value in arguments.items():
        assert value == given.get(name, parameters[name].default), name
    augmentations = [named.build() for named in configuration.data.augment]
    assert augmentations == [RandomFlip(vertical=True), ScaleJitter(low=0.8)]
    assert configuration.schedule.name == "constant"
    assert configuration.optimizer.momentum == 0.9


VAL = "  val: [{annotations: /elsewhere/b.json}, {annotations: c.json}]\n"


def test_a_file_of_backbone_weights_is_sought_in_the_folder_of_the_configuration(write, tmp_path):
    path = write(GOOD)
    (error,) = errors_of(path, ["model.backbone_weights=own.pth"])
    assert "model.backbone_weights = 'own.pth': no such file" in error
    (tmp_path / "own.pth").touch()
    arguments = load_configuration(path, ["model.backbone_weights=own.pth"]).model_arguments
    assert arguments["backbone_weights"] == str(tmp_path / "own.pth")


def test_validation_data_are_stated_or_held_out(write):
    path = write(GOOD.replace(VAL, "  validation_split: 0.2\n"))
    assert load_configuration(path).data.val == ()
    (error,) = errors_of(write(GOOD.replace(VAL, "")))
    assert "data.val = []: needs data to score on; or give validation_split" in error
    (error,) = errors_of(write(GOOD), ["data.validation_split=0.5"])
    assert "data.val = " in error
    assert "should not be there beside validation_split" in error


def test_paths_are_relative_to_the_folder_of_the_file(write, tmp_path):
    data = load_configuration(write(GOOD)).data
    assert data.train[0].annotations == str(tmp_path / "a.json")
    assert data.train[0].images == str(tmp_path / "pictures")
    assert [source.annotations for source in data.val] == [
        "/elsewhere/b.json",
        str(tmp_path / "c.json"),
    ]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_resolved_configuration_loads_equal_from_another_folder(path, write):
    configuration = load_configuration(path)
    text = configuration.to_yaml()
    again = load_configuration(write(text))
    assert again == configuration
    assert again.to_yaml() == text
    all_stated = set(yaml.safe_load(text)["model"]) >= {"image_mean", "box_nms_thresh"}
    assert all_stated == (configuration.preset is None)  # which brings its own


BAD = """
model: {architecture: faster_rcnn, min_sise: 3, anchor_sizes: [[8], [a]]}
data:
  format: coco
  train: {annotation: a.json}
  val: []
  augment:
    - RandomFlips: {}
    - ScaleJitter: {low: 8}
    - RandomErasing
    - {RandomFlip: {}, RandomRotation: {}}
optimiser: {}
optimizer: {name: sgd, learning_rate: "0.1", momentum: 1.0}
schedule: {name: stairs}
training: {epochs: true, seed: -1, precision: fp16, zzz: 1}
"""


def test_all_errors_are_listed_with_file_key_value_and_nearest_key(write):
    path = write(BAD)
    errors = errors_of(path)
    found = {error.removeprefix(f"{path}: ") for error in errors}
    assert len(errors) == len(found) == 17
    assert all(error.startswith(f"{path}: ") for error in errors)
    expected = [
        "model.min_sise = 3: unknown key, did you mean 'min_size'?",
        "model.anchor_sizes.1.0 = 'a': should be a valid number",
        "data.train.annotations: missing",
        "data.train.annotation = 'a.json': unknown key, did you mean 'annotations'?",
        "data.augment.0.RandomFlips = {}: unknown key, did you mean 'RandomFlip'?",
        "data.augment.1 = {'ScaleJitter': {'low': 8}}: ScaleJitter needs",
        "data.augment.2 = 'RandomErasing': should be a mapping of keys to values",
        "data.augment.3 = {'RandomFlip': {}, 'RandomRotation': {}}: should be one augmentation",
        "optimiser = {}: unknown key, did you mean 'optimizer'?",
        "optimizer.learning_rate = '0.1': should be a valid number",
        "optimizer.momentum = 1.0: should be less than 1",
        "schedule.name = 'stairs': should be 'constant', 'step', 'cosine'",
        "training.epochs = True: should be a valid integer",
        "training.seed = -1: should be greater than or equal to 0",
        "training.precision = 'fp16': should be 'float32'",
        "training.zzz = 1: unknown key, not of: epochs, seed",
        "data.val = []:",
    ]
    for start in expected:
        assert any(error.startswith(start) for error in found), (start, sorted(found))


WEIGHTS = "model.backbone_weights"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rpn_nms_thresh=1.5", "rpn_nms_thresh = 1.5: must be in 0..1"),
        ("backbone=resnet81_fpn", "(did you mean 'resnet18_fpn'?)"),
        ("norm=layer", "norm = 'layer': must be one of batch, frozen_batch, group"),
        ("anchor_sizes=[[8]]", "anchor_sizes = [[8.0]]: must have 5 levels for resnet50_fpn"),
        ("backbone=vgg16", "must have 1 level for vgg16"),
        ("backbone=zf", "must have 1 level for zf"),
        ("rpn_objectness=relu", "rpn_objectness = 'relu': must be one of sigmoid, softmax"),
        ("anchor_sizes=[[8], [8], [8], [8], [8, 9]]", "must have as many sizes on every level"),
        ("anchor_sizes=[[8], [8], [8], [8], [-8]]", "for each level a list of sizes above 0"),
        ("anchor_sizes=[[8], [8], [8], [8], []]", "for each level a list of sizes above 0"),
        ("bbox_reg_weights=[1.0]", "bbox_reg_weights = [1.0]: must be four numbers above 0"),
        ("box_units=-5", "box_units = -5: must be None or a whole number of at least 1"),
        ("box_units=0", "box_units = 0: must be None or a whole number of at least 1"),
        ("image_std=[0.0]", "image_std = [0.0]: must be None or three numbers above 0"),
        ("image_std=[1, 1, 0]", "must be None or three numbers above 0"),
        ("image_mean=[0, 0, 256]", "must be None or three numbers in 0..255"),
        ("aspect_ratios=[]", "aspect_ratios = []: must be one or more numbers above 0"),
        ("fpn_channels=0", "fpn_channels = 0: must be a whole number of at least 1"),
        ("backbone_width=0", "backbone_width = 0.0: must be a number above 0"),
        ("backbone_width=0.3", "backbone_width = 0.3: must be a multiple of 1/64 above 0"),
        ("max_size=200", "min_size = 240: must be at most max_size=200"),
        ("rpn_fg_iou_thresh=0.1", "rpn_bg_iou_thresh = 0.3: must be at most rpn_fg_iou_thresh="),
    ],
)
def test_model_arguments_are_checked_before_anything_is_built(write, override, message):
    """If two conflict, the error may name the one that is a default."""
    (error,) = errors_of(write(GOOD), [f"model.{override}"])
    assert "model." in error
    assert message in error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backbone=resnet18"], "keras.applications has no resnet18"),
        (["backbone=zf"], "keras.applications has no zf"),
        (["backbone=resnet50"], "needs stride_in_1x1=True"),
        (["backbone=resnet50", "stride_in_1x1=true", "norm=group"], "not norm='group'"),
        (["backbone=vgg16", "box_units=64"], "not box_units=64"),
        (["backbone=resnet50", "backbone_width=2"], "backbone_width=1, with which they were"),
        (["backbone=resnet101", "stride_in_1x1=true"], None),
        (["backbone=vgg16", "box_units=4096"], None),
        (["backbone=vgg16"], None),
    ],
)
def test_imagenet_weights_need_an_architecture_that_has_them(write, overrides, message):
    overrides = [f"model.{override}" for override in ("anchor_sizes=null", *overrides)]
    overrides.append(f"{WEIGHTS}=imagenet")
    if message is None:
        assert load_configuration(write(GOOD), overrides).model.backbone_weights == "imagenet"
        return
    (error,) = errors_of(write(GOOD), overrides)
    assert error.startswith(f"--set {WEIGHTS}: {WEIGHTS} = 'imagenet': needs ")
    assert message in error


def test_all_wrong_arguments_of_a_model_are_reported_at_once(write):
    errors = errors_of(write(GOOD), ["model.box_units=0", "model.norm=x", "model.max_size=1"])
    assert len(errors) == 3


def test_classes_and_seed_are_not_arguments_of_the_model(write):
    errors = errors_of(write(GOOD), ["model.seed=3", "model.classes=[a]", "training.jit_compile=1"])
    assert len(errors) == 3
    assert all("unknown key" in error for error in errors)


def keys_in(node, path=()):
    """The dotted keys of all values, inner and outer, in nested mappings and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        inner = (*path, str(key))
        yield ".".join(inner)
        if isinstance(value, dict | list):
            yield from keys_in(value, inner)


@pytest.mark.parametrize("value", ["[1]", "[]", "[[1], {a: 1}]", "{0: 1}", "x", "-1.5", ".nan"])
def test_a_wrong_value_at_any_key_is_reported_as_an_error(write, value):
    """A list where a number belongs, a tuple that is too short: each has its line."""
    text = GOOD + "schedule: {name: step, milestones: [2]}\n"
    erasing = "data.augment.1={RandomErasing: {area: [0.1, 0.2]}}"
    document = yaml.safe_load(load_configuration(write(text), [erasing]).to_yaml())
    path = write(yaml.safe_dump(document))
    refused = []
    for key in keys_in(document):
        try:
            load_configuration(path, [f"{key}={value}"])
        except ConfigurationError as error:
            refused.append((key, str(error)))
    assert len(refused) > 40
    assert all(key.split(".")[0] in error for key, error in refused)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule={name: step, milestones: [9, 30]}", "schedule.milestones = [9.0, 30.0]: should"),
        ("schedule={name: step, milestones: [9, 9]}", "schedule.milestones = [9.0, 9.0]: should"),
        ("training.evaluate_every=13", "training.evaluate_every = 13: should be at most"),
    ],
)
def test_conflicting_sections_are_refused(write, override, message):
    (error,) = errors_of(write(GOOD), [override])
    assert message in error


def test_an_alternating_configuration_loads_equal(write):
    assert load_configuration(write(GOOD)).training.alternating is None
    alternating = "training.alternating={detector_epochs: 8}"
    configuration = load_configuration(write(GOOD), [alternating, "model.rpn_objectness=softmax"])
    assert configuration.training.alternating.detector_epochs == 8
    assert configuration.model_arguments["rpn_objectness"] == "softmax"
    assert load_configuration(write(configuration.to_yaml())) == configuration


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["alternating={detector_epochs: 0}"], "detector_epochs = 0: should be greater than"),
        (["alternating={}"], "alternating.detector_epochs: missing"),
        (["alternating={detector_epoch: 2}"], "did you mean 'detector_epochs'?"),
        (["evaluate_every=2"], "evaluate_every does not go with alternating"),
        (["early_stopping_patience=2"], "early_stopping_patience does not go with alternating"),
    ],
)
def test_wrong_alternating_configurations_are_refused(write, overrides, message):
    overrides = ["alternating={detector_epochs: 8}", *overrides]
    errors = errors_of(write(GOOD), [f"training.{override}" for override in overrides])
    assert any(message in error for error in errors), errors


def test_a_configuration_with_several_sizes_loads_equal(write):
    configuration = load_configuration(write(GOOD), ["model.min_size=[480, 688, 600]"])
    assert configuration.model_arguments["min_size"] == (480, 688, 600)
    assert load_configuration(write(configuration.to_yaml())) == configuration
    assert load_configuration(write(GOOD)).model_arguments["min_size"] == 240
    (error,) = errors_of(write(GOOD), ["model.min_size=[480, 1400]"])
    assert error == (
        "--set model.min_size: model.min_size = [480, 1400]: must be at most max_size=1333"
    )


def test_mask_rcnn_takes_the_same_arguments_and_needs_masks(write):
    mask_rcnn = "model.architecture=mask_rcnn"
    configuration = load_configuration(write(GOOD), [mask_rcnn])
    assert configuration.trains_masks
    assert not load_configuration(write(GOOD)).trains_masks
    assert configuration.model_arguments == load_configuration(write(GOOD)).model_arguments
    records = "data={format: records, train: {root: a}, val: {root: a}, shuffle: shards}"
    data = load_configuration(write(GOOD), [records]).data
    assert (data.format, data.shuffle) == ("records", "shards")
    (error,) = errors_of(write(GOOD), ["data.shuffle=shards"])
    assert "data.shuffle = 'shards': needs data.format 'records', not 'coco'" in error
    voc = "data={format: voc, train: {root: a}, val: {root: a}}"
    assert load_configuration(write(GOOD), [voc]).data.format == "voc"
    (error,) = errors_of(write(GOOD), [mask_rcnn, voc])
    assert "data.format = 'voc': mask_rcnn is trained on masks" in error


def test_overrides_are_yaml_values_that_reach_into_lists_and_missing_sections(write):
    configuration = load_configuration(
        write(GOOD),
        [
            "optimizer.learning_rate=2e-3",
            "data.val.1.annotations=/other/d.json",
            "schedule.name=cosine",
            "schedule.warmup_steps=7",
            "data.augment=[]",
            "model.anchor_sizes=null",
            "training.early_stopping_patience=3",
            "training.early_stopping_patience=4",
        ],
    )
    assert configuration.optimizer.learning_rate == 0.002
    assert configuration.data.val[1].annotations == "/other/d.json"
    assert (configuration.schedule.name, configuration.schedule.warmup_steps) == ("cosine", 7)
    assert configuration.data.augment == ()
    assert configuration.model.anchor_sizes is None
    assert configuration.training.early_stopping_patience == 4


def test_errors_in_overrides_name_the_override(write):
    path = write(GOOD)
    errors = errors_of(path, ["optimizer.learning_rate=fast", "trainin.epochs=3"])
    assert sorted(errors) == [
        "--set optimizer.learning_rate: optimizer.learning_rate = 'fast': should be a valid number",
        "--set trainin.epochs: trainin = {'epochs': 3}: unknown key, did you mean 'training'?",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("epochs", "--set epochs: should look like key.sub=value"),
        ("training..epochs=3", "should look like key.sub=value"),
        ("training.epochs.more=3", "training.epochs is 12, not a section"),
        ("training.epochs.a.b=3", "'a' is not a key of 12"),
        ("data.val.7.annotations=x", "'7' should be one of 0..1"),
        ("training.epochs=[3", "--set training.epochs=[3: the value is not YAML: "),
    ],
)
def test_invalid_overrides_are_refused(write, override, message):
    (error,) = errors_of(write(GOOD), [override])
    assert message in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {", ":1:9: "),
        ("model: 1\nmodel: 2", ":2:1: the key 'model' is given twice"),
        ("- a", "expected a mapping of sections, not ['a']"),
        ("", "expected a mapping of sections, not None"),
    ],
)
def test_files_that_are_not_configurations_are_refused(write, text, message):
    (error,) = errors_of(write(text))
    assert error.startswith(str(write(text)))
    assert message in error


def test_a_missing_file_and_a_binary_file_are_refused(tmp_path):
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (missing,) = errors_of(tmp_path / "none.yaml")
    (binary,) = errors_of(tmp_path / "binary.yaml")
    assert missing == f"{tmp_path / 'none.yaml'}: cannot be read: No such file or directory"
    assert binary == f"{tmp_path / 'binary.yaml'}: cannot be read: not a text file"


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "+1.e-4", ".1e-3", "0.0001"])
def test_numbers_may_have_exponents_without_a_dot(write, text):
    assert read_document(write(f"rate: {text}")).values == {"rate": 1e-4}


@pytest.mark.parametrize(
    "text",
    [
        "data/#1/train.json",
        "photos #2/train.json",
        "#5/train.json",
        "set: a/train.json",
        "train: val.json",
        "{x}/train.json",
        "[2024] photos/train.json",
        "@home/train.json",
        "*/train.json",
        "%25/train.json",
        "!new/train.json",
        "&a/train.json",
        "& a/train.json",
        "|pipe/train.json",
        "- new/train.json",
        "C:\\data\\train.json",
    ],
)
def test_a_path_with_characters_of_yaml_is_taken_as_it_stands(text, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("data: {train: {}}")
    document = read_document(path, [f"data.train.annotations={text}"])
    assert document.values["data"]["train"]["annotations"] == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("[[8], [16]]", [[8], [16]]),
        ("{name: adam}", {"name": "adam"}),
        ("null", None),
        ("~", None),
        ("", None),
        ("'#5: a'", "#5: a"),
        ('"[1]"', "[1]"),
        ("3 # a comment", 3),
        ("false", False),
    ],
)
def test_other_values_of_overrides_are_those_of_yaml(text, value, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("{}")
    assert read_document(path, [f"a.b={text}"]).values == {"a": {"b": value}}
