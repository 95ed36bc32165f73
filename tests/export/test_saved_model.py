"""The folder that is written, and what is refused before anything long is done."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

import rcnn_keras.export.saved_model as module
from rcnn_keras.data.images import ImageError
from rcnn_keras.export.preparation import folded
from rcnn_keras.export.saved_model import is_untrained, saved_model
from rcnn_keras.models import FastRCNN


def test_no_weight_is_stored_twice(exported, model):
    (weights,) = (exported / "variables").glob("*.data-*")
    parameters = model.count_params()
    assert 3.9 * parameters < weights.stat().st_size < 4.1 * parameters


def test_batch_norm_is_folded(exported, model):
    names = [name for name, _ in tf.train.list_variables(str(exported / "variables/variables"))]
    assert len(names) < len(model.variables)
    graph = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    functions = graph.meta_graphs[0].graph_def.library.function
    nodes = " ".join(node.name for function in functions for node in function.node_def)
    assert "class_logits" in nodes
    assert "batchnorm" not in nodes


def test_names_of_the_classes_are_with_it(exported):
    assert (exported / "assets.extra" / "classes.txt").read_text() == "circle\nsquare\n"


def test_signatures_say_names_types_and_shapes(exported):
    graph = saved_model_pb2.SavedModel.FromString((exported / "saved_model.pb").read_bytes())
    signatures = graph.meta_graphs[0].signature_def

    def described(tensors):
        shapes = {k: [d.size for d in info.tensor_shape.dim] for k, info in tensors.items()}
        return {k: (tf.as_dtype(info.dtype).name, shapes[k]) for k, info in tensors.items()}

    assert described(signatures["serving_default"].inputs) == {"images": ("uint8", [-1, -1, -1, 3])}
    assert described(signatures["image_bytes"].inputs) == {"image_bytes": ("string", [-1])}
    for name in ("serving_default", "image_bytes"):
        assert signatures[name].method_name == "tensorflow/serving/predict"
        assert described(signatures[name].outputs) == {
            "boxes": ("float32", [-1, 6, 4]),
            "scores": ("float32", [-1, 6]),
            "labels": ("int32", [-1, 6]),
            "num_detections": ("int32", [-1]),
            "masks": ("float32", [-1, 6, 28, 28]),
        }


@pytest.mark.slow
def test_the_command_of_tensorflow_shows_and_runs_it(exported, detected, images, tmp_path):
    def saved_model_cli(*arguments):
        command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    of = ("--dir", str(exported), "--tag_set", "serve", "--signature_def", "serving_default")
    assert "inputs['images'] tensor_info:" in saved_model_cli("show", *of)
    np.save(tmp_path / "image.npy", images["a"][None])
    saved_model_cli("run", *of, "--inputs", "images=image.npy", "--outdir", ".")
    found = np.load(tmp_path / "boxes.npy")[0, : len(detected["a"])]
    np.testing.assert_allclose(found, detected["a"].boxes, atol=1e-3)


@pytest.mark.slow
def test_wrong_types_and_ranks_are_named(exported, images):
    default = tf.saved_model.load(exported).signatures["serving_default"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="float"):
        default(images=tf.constant(images["a"][None], tf.float32))
    with pytest.raises(TypeError, match="images"):
        default(images=images["a"])


# refused


@pytest.fixture
def hurried(monkeypatch):
    """Nothing long may begin."""

    def fail(*arguments):
        raise AssertionError("the long work began")

    monkeypatch.setattr(module, "ServedDetector", fail)
    monkeypatch.setattr(module, "folded", fail)


@pytest.mark.usefixtures("hurried")
def test_a_folder_that_is_there_is_refused(exported, model, tmp_path):
    with pytest.raises(FileExistsError, match="tiny exists"):
        saved_model(model, exported)
    (tmp_path / "other.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"without saved_model\.pb it is not an export"):
        saved_model(model, tmp_path, overwrite=True)


@pytest.mark.usefixtures("hurried")
def test_options_that_do_not_fit_are_refused(model, tmp_path):
    boxes_alone = FastRCNN("zf", ("cat",), box_units=4, recompute_stages=0)
    with pytest.raises(ValueError, match="FastRCNN has no masks to paste"):
        saved_model(boxes_alone, tmp_path / "new", paste_masks=True)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.png"):
        saved_model(model, tmp_path / "new", warm_up=[tmp_path / "text.png"])


@pytest.mark.usefixtures("hurried")
def test_warm_up_says_which_package_is_missing(model, images, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'rcnn-keras\[serving\]'"):
        saved_model(model, tmp_path / "new", warm_up=[images["a"]])


def test_a_failure_leaves_nothing_and_keeps_what_was_there(model, exported, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(module, "ServedDetector", fail)
    monkeypatch.setattr(module, "folded", lambda model, winograd: model)
    with pytest.raises(RuntimeError, match="disk is full"):
        saved_model(model, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(exported, tmp_path / "new")
    with pytest.raises(RuntimeError, match="disk is full"):
        saved_model(model, tmp_path / "new", overwrite=True)
    assert (tmp_path / "new" / "saved_model.pb").exists()


def test_a_detector_without_training_is_reported(tmp_path, monkeypatch):
    untrained = FastRCNN("zf", ("cat",), box_units=4, recompute_stages=0, name="picky")
    assert is_untrained(untrained)
    assert folded(untrained) is untrained  # it has no batch norm

    def stop(*arguments):
        raise RuntimeError("enough")

    monkeypatch.setattr(module, "ServedDetector", stop)
    with (
        pytest.warns(UserWarning, match="picky was never trained"),
        pytest.raises(RuntimeError, match="enough"),
    ):
        saved_model(untrained, tmp_path / "new")
    untrained.box_head.class_logits.bias.assign([0.0, 1e-9])
    assert not is_untrained(untrained)
