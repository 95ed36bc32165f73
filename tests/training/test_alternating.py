"""The four steps: what each of them changes, their order, and their result."""

import csv
import shutil

import keras
import numpy as np
import pytest

from rcnn_keras.models import FasterRCNN, MaskRCNN
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.run import _optimizer, build_model, train
from rcnn_keras.training import alternating, train_alternating

SMALL = {
    "backbone": "zf",
    "backbone_width": 1.0,
    "box_units": 8,
    "min_size": 64,
    "max_size": 64,
    "anchor_sizes": [[16, 32, 64]],
    "rpn_objectness": "softmax",
    "rpn_post_nms_top_n_train": 20,
    "rpn_post_nms_top_n_test": 10,
    "box_batch_size_per_image": 16,
    "box_detections_per_img": 5,
    "box_score_thresh": 0.0,
    "frozen_stages": 1,
}
SECTIONS = {
    "model": {"architecture": "faster_rcnn", **SMALL},
    "data": {"augment": [{"RandomFlip": {}}]},
    "schedule": {"name": "step", "milestones": [1.5]},
    "training": {"epochs": 2, "alternating": {"detector_epochs": 1}},
}
NAMES = ("1_rpn", "2_detector", "3_rpn", "4_detector")
EPOCHS = (2, 1, 2, 1)
RPN, DETECTOR = ("rpn_objectness_loss", "rpn_box_loss"), ("class_loss", "box_loss")


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_config):
    return write_config(tmp_path_factory.mktemp("config"), SECTIONS)


@pytest.fixture(scope="module")
def scenes(config):
    return read_data(load_configuration(config).data)[0]


@pytest.fixture
def initial(config, scenes):
    """The detector as every run of the configuration begins."""
    return build_model(load_configuration(config), scenes)


def loaded(out, name):
    return keras.models.load_model(out / name / "model.keras")


def parts_of(model):
    """Values of the weights of each part; the frozen stage apart from the rest of the backbone."""
    layers = {
        "frozen": [model.backbone.get_layer("conv1")],
        "backbone": [model.backbone.get_layer(f"conv{k}") for k in range(2, 6)],
        "rpn_head": [model.rpn_head],
        "box_head": [model.box_head],
    }
    return {part: [w.numpy() for x in each for w in x.weights] for part, each in layers.items()}


@pytest.mark.parametrize(
    ("step", "since", "learns"),
    [
        ("1_rpn", None, {"backbone", "rpn_head"}),
        ("2_detector", None, {"backbone", "box_head"}),
        ("3_rpn", "2_detector", {"rpn_head"}),
        ("4_detector", "3_rpn", {"box_head"}),
    ],
)
def test_a_step_changes_the_weights_of_its_layers_only(run, initial, step, since, learns):
    _, out, _ = run
    before, after = parts_of(loaded(out, since) if since else initial), parts_of(loaded(out, step))
    for part, values in before.items():
        differ = {bool(np.any(a != b)) for a, b in zip(values, after[part], strict=True)}
        assert differ == {part in learns}, part


def test_the_history_has_only_the_trained_losses(run):
    _, out, history = run
    with (out / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    trained = [RPN if name.endswith("rpn") else DETECTOR for name in NAMES]
    by_epoch = [losses for losses, n in zip(trained, EPOCHS, strict=True) for _ in range(n)]
    for row, losses in zip(rows, by_epoch, strict=True):
        given = {name for name, value in row.items() if value}
        assert given == {"epoch", "loss", *losses}
        assert sum(float(row[name]) for name in losses) == pytest.approx(float(row["loss"]), 1e-4)
    assert history.epoch == [5]
    assert set(history.history) == {"loss", *DETECTOR}


def test_the_result_is_an_ordinary_detector(run, scenes):
    _, out, _ = run
    assert {path.name for path in out.iterdir() if path.is_dir()} == {*NAMES, "pictures"}
    for name in ("scores.json", "report.html"):
        assert (out / name).exists()
    best, step = keras.models.load_model(out / "best.keras"), loaded(out, "4_detector")
    assert type(best) is FasterRCNN
    assert best.get_config()["frozen_stages"] == 1
    for found, expected in zip(best.detect(scenes), step.detect(scenes), strict=True):
        assert len(found.boxes) > 0
        np.testing.assert_array_equal(found.boxes, expected.boxes)


def test_a_finished_training_is_only_loaded(run, initial, scenes, tmp_path, recwarn):
    """The model trains, saves and loads as one that was never trained alternately."""
    _, out, _ = run

    def sgd(model, epochs):
        return keras.optimizers.SGD(0.01, momentum=0.9)

    batches = scenes.batches(2)
    trainable = [weight.path for weight in initial.trainable_weights]
    assert train_alternating(initial, batches, sgd, epochs=EPOCHS, out=out, verbose=0) == {}
    last = loaded(out, NAMES[-1])
    for ours, theirs in zip(initial.get_weights(), last.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [weight.path for weight in initial.trainable_weights] == trainable
    assert initial.trained_losses == initial.loss_names
    initial.save(tmp_path / "mine.keras")
    assert len(keras.models.load_model(tmp_path / "mine.keras").trainable_weights) == len(trainable)
    assert [str(w.message) for w in recwarn if "optimizer" in str(w.message)] == []


def test_step_two_is_trained_on_the_proposals_of_step_one(run, initial, scenes):
    _, out, _ = run
    inputs, _ = next(iter(scenes.batches(2, min_size=64, max_size=64)))
    own = initial.extract_features(dict(inputs), training=True)
    with alternating._trained_layers(initial, alternating.STEPS[1], out):
        first = initial.extract_features(dict(inputs), training=True)
    expected = loaded(out, "1_rpn").extract_features(dict(inputs), training=True)
    assert first["proposals"].shape == (2, 20, 4)  # as many as in training
    for name in ("proposals", "num_proposals"):
        np.testing.assert_array_equal(first[name], expected[name])
    assert np.any(first["proposals"] != own["proposals"])
    np.testing.assert_array_equal(first["features"][0], own["features"][0])
    after = initial.extract_features(dict(inputs), training=True)
    np.testing.assert_array_equal(after["proposals"], own["proposals"])


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_the_unfinished_step(run, tmp_path, capsys):
    """Interrupted in step 3 after files were written; 3 and 4 then run on the results of 1, 2."""
    configuration, finished, _ = run
    for name in NAMES[:2]:
        shutil.copytree(finished / name, tmp_path / name)
    for name in ("config.yaml", "history.csv"):
        shutil.copy(finished / name, tmp_path)
    torn = tmp_path / ".3_rpn.abc" / "3_rpn"
    torn.mkdir(parents=True)
    (torn / "model.keras").write_text("half of it")
    before = [(tmp_path / name / "model.keras").stat().st_mtime_ns for name in NAMES[:2]]
    train(configuration, tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Step ")]
    assert said == [
        "Step 1_rpn: finished before",
        "Step 2_detector: finished before",
        "Step 3_rpn: 2 epochs of rpn_head",
        "Step 4_detector: 1 epochs of box_head",
    ]
    assert [(tmp_path / name / "model.keras").stat().st_mtime_ns for name in NAMES[:2]] == before
    assert not torn.parent.exists()
    ours, theirs = (parts_of(loaded(out, NAMES[-1])) for out in (tmp_path, finished))
    for part in ours:
        for a, b in zip(ours[part], theirs[part], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(FileExistsError, match="holds a finished run"):
        train(configuration, tmp_path)


def test_wrong_epochs_and_a_folder_of_another_model_are_refused(run, scenes, tmp_path):
    _, out, _ = run

    def fail(model, epochs):
        raise RuntimeError("no optimizer")

    other = FasterRCNN(classes=scenes.classes, **(SMALL | {"box_units": 4}))
    with pytest.raises(FileExistsError, match=r"1_rpn/model\.keras is of another model"):
        train_alternating(other, scenes.batches(2), fail, epochs=EPOCHS, out=out)
    with pytest.raises(ValueError, match=r"four numbers, one a step; received \(1, 2\)"):
        train_alternating(other, scenes.batches(2), fail, epochs=(1, 2), out=tmp_path)
    trainable = [weight.path for weight in other.trainable_weights]
    with pytest.raises(RuntimeError, match="no optimizer"):
        train_alternating(other, scenes.batches(2), fail, epochs=EPOCHS, out=tmp_path, verbose=0)
    assert list(tmp_path.iterdir()) == []
    assert other.trained_losses == other.loss_names  # and the model is an ordinary one again
    assert [weight.path for weight in other.trainable_weights] == trainable


def test_the_mask_head_is_trained_with_the_second_stage_and_the_pyramid_with_the_backbone(scenes):
    small = SMALL | {"backbone": "resnet18_fpn", "anchor_sizes": ((16,),) * 5, "fpn_channels": 8}
    model = MaskRCNN(classes=scenes.classes, **small)
    learns = []
    for step in (alternating.STEPS[0], *alternating.STEPS[2:]):
        with alternating._trained_layers(model, step, None):
            learns.append({layer.name for layer in model.layers if layer.trainable_weights})
            assert {name.startswith("rpn_") for name in model.trained_losses} == {step.rpn}
            assert not model.backbone.get_layer("conv1").trainable
            assert model.backbone.get_layer("layer1_0_conv1").trainable == step.convolutions
    assert learns == [{"backbone", "fpn", "rpn_head"}, {"rpn_head"}, {"box_head", "mask_head"}]


def test_the_schedule_is_scaled_to_the_length_of_a_step(config):
    configuration = load_configuration(config)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.build((None, 1))
    for epochs, drop in ((2, 15), (1, 8), (4, 30)):  # at three quarters, of 10 steps an epoch
        optimizer = _optimizer(configuration, 10, model, epochs)
        rates = [float(optimizer._learning_rate(step)) for step in (drop - 1, drop)]
        np.testing.assert_allclose(rates, [0.01, 0.001], rtol=1e-6)
