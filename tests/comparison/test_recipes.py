import pytest

from rcnn_keras.comparison import FAMILY, Settings
from rcnn_keras.comparison.recipes import anchors, configuration, rcnn_rate, small_rcnn
from rcnn_keras.models import FasterRCNN, FastRCNN, MaskRCNN
from rcnn_keras.runs.configuration import ARCHITECTURES

RUNS = ["fast_rcnn", "faster_rcnn", "faster_rcnn_alternating", "mask_rcnn"]
FILES = {"annotations": "/data/a.json", "images": None, "proposals": "/data/a.npz"}


def recipe(name, **settings):
    return configuration(name, Settings(val="val.json", **settings), FILES, FILES, ["a", "b"])


@pytest.mark.parametrize("name", RUNS)
def test_every_recipe_is_a_sound_configuration(name):
    run = recipe(name, epochs=6, seed=3)
    expected = {"fast_rcnn": FastRCNN, "mask_rcnn": MaskRCNN}.get(name, FasterRCNN)
    assert ARCHITECTURES[run.model.architecture] is FAMILY[name].model is expected
    assert (run.data.train[0].proposals is None) == (name != "fast_rcnn")
    assert run.training.seed == 3


def test_they_differ_in_what_the_papers_changed_alone():
    """The same network and images; Faster R-CNN's two ways have the same model."""
    models = {name: recipe(name).model.model_dump() for name in RUNS}
    shared = ("backbone", "min_size", "max_size", "fpn_channels", "box_units", "norm")
    for name in RUNS:
        assert {key: models[name][key] for key in shared} == {
            key: models["faster_rcnn"][key] for key in shared
        }
    assert models["faster_rcnn"] == models["faster_rcnn_alternating"]


def test_half_the_epochs_in_each_of_four_steps():
    joint, steps = recipe("faster_rcnn", epochs=6), recipe("faster_rcnn_alternating", epochs=6)
    assert joint.training.epochs == 6
    assert joint.training.alternating is None
    assert (steps.training.epochs, steps.training.alternating.detector_epochs) == (3, 3)
    assert recipe("faster_rcnn_alternating", epochs=1).training.epochs == 1


def test_anchors_of_another_size():
    assert anchors(800) == [[32.0], [64.0], [128.0], [256.0], [512.0]]
    assert anchors(240) == [[10.0], [19.0], [38.0], [77.0], [154.0]]


def test_rcnn_is_the_same_in_every_run():
    first, second = (small_rcnn(["a"], seed=1).network.get_weights() for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_the_rate_rises_and_falls_to_nothing():
    rates = [float(rcnn_rate(500)(step)) for step in (0, 50, 100, 499, 500)]
    assert rates[0] == 0
    assert rates[1:3] == pytest.approx([0.005, 0.01])
    assert 0 <= rates[4] <= rates[3] < 1e-4
    assert float(rcnn_rate(2)(2)) == 0
