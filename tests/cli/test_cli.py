"""The command line: results on drawn shapes, and errors that take one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_length

import rcnn_keras.cli
from rcnn_keras.cli.detect import _different_names
from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.evaluation import VocScores
from rcnn_keras.models import FasterRCNN, MaskRCNN


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder with three drawn images and their annotations.json."""
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(3, size=(64, 64), out=folder)
    return folder


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, shapes, small_arguments):
    """An untrained detector of shapes."""
    classes = load_coco(shapes / "annotations.json").classes
    path = tmp_path_factory.mktemp("model") / "shapes.keras"
    FasterRCNN(classes=classes, **small_arguments).save(path)
    return path


@pytest.fixture(scope="module")
def mask_model_file(tmp_path_factory, shapes, small_arguments):
    """An untrained detector of shapes and their masks, sure of whatever it finds."""
    classes = load_coco(shapes / "annotations.json").classes
    path = tmp_path_factory.mktemp("model") / "masks.keras"
    model = MaskRCNN(classes=classes, **small_arguments)
    model.box_head.class_logits.bias.assign([-9.0, 9.0, 0.0, 0.0, 0.0])
    model.save(path)
    return path


@pytest.mark.parametrize("command", ["train", "evaluate", "detect", "app", "data check"])
def test_every_help_has_an_example(command, rcnn):
    result = rcnn(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example:\n    rcnn {command} " in result.output


# detect


def test_detect_writes_pictures_and_coco_rows(shapes, model_file, tmp_path, rcnn):
    single = tmp_path / "elsewhere" / "shapes_000000.png"
    single.parent.mkdir()
    shutil.copy(shapes / "shapes_000000.png", single)
    out = tmp_path / "found"
    result = rcnn(
        *("detect", single, shapes, shapes / "*1.png"),
        *("--model", model_file, "--out", out, "--min-score", 0.1, "--batch-size", 2),
    )
    assert result.exit_code == 0, result.output
    pictures = ["shapes_000000", "shapes_000000_2", "shapes_000001", "shapes_000002"]
    assert sorted(path.stem for path in out.glob("*.png")) == pictures
    rows = json.loads((out / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2, 3, 4}
    classes = ("circle", "triangle", "square", "star")
    for row in rows:
        x, y, width, height = row["bbox"]
        assert 0 <= x <= x + width <= 64
        assert 0 <= y <= y + height <= 64
        assert row["class"] == classes[row["category_id"] - 1]
        assert row["score"] >= 0.1
        assert "segmentation" not in row
    of_copies = [[row for row in rows if row["image_id"] == i] for i in (1, 2)]
    assert {row["file"] for row in of_copies[0]} == {str(single)}
    boxes = [[row["bbox"] for row in of_copy] for of_copy in of_copies]
    np.testing.assert_allclose(boxes[0], boxes[1], atol=1e-3)
    drawn = np.asarray(Image.open(out / "shapes_000000.png"))
    assert drawn.shape == (64, 64, 3)
    assert (drawn != np.asarray(Image.open(single).convert("RGB"))).any()


def test_detect_writes_masks_as_run_lengths(shapes, mask_model_file, tmp_path, rcnn):
    image = shapes / "shapes_000000.png"
    result = rcnn("detect", image, "--model", mask_model_file, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "detections.json").read_text())
    (found,) = keras.models.load_model(mask_model_file).detect(image)
    expected = found.above(0.5).bool_masks()
    masks = [run_length.decode(row["segmentation"]) for row in rows]
    np.testing.assert_array_equal(masks, expected)
    assert expected.any()


def test_detect_leaves_out_what_scores_less(shapes, model_file, tmp_path, rcnn):
    result = rcnn("detect", shapes, "--model", model_file, "--out", tmp_path, "--min-score", 0.99)
    assert result.output.count("nothing found") == 3
    assert "the model gives" not in result.stderr
    assert json.loads((tmp_path / "detections.json").read_text()) == []


def test_detect_counts_what_it_passes_over_in_a_folder(shapes, model_file, tmp_path, rcnn):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(shapes / "shapes_000000.png", photos / "a.PNG")
    Image.open(photos / "a.PNG").save(photos / "b.jfif", "JPEG")
    for name in ("._a.png", ".DS_Store", "notes.txt"):
        (photos / name).write_bytes(b"\0\5\26\7")
    for images, passed_over in (
        (photos, "2 images, passed over 2 system files, 1 file .txt"),
        (f"{photos}/*.[pP][nN][gG]", "1 image, passed over 1 system file"),
    ):
        out = tmp_path / passed_over[0]
        result = rcnn("detect", images, "--model", model_file, "--out", out)
        assert result.exit_code == 0, result.output
        assert f"{images}: {passed_over}" in result.output
        assert len(list(out.glob("*.png"))) == int(passed_over[0])


def test_detect_tells_what_is_missing(shapes, model_file, tmp_path, error_of):
    out = ("--out", tmp_path / "found")
    picture = shapes / "shapes_000000.png"
    empty = tmp_path / "empty"
    empty.mkdir()
    none = tmp_path / "none.png"
    assert f"{none}: no such file" in error_of("detect", none, "--model", model_file, *out)
    assert "no image in this folder" in error_of("detect", empty, "--model", model_file, *out)
    assert "a*.jpg: no such file" in error_of("detect", "a*.jpg", "--model", model_file, *out)
    message = f"model file {tmp_path / 'm.keras'}: no such file"
    assert message in error_of("detect", picture, "--model", tmp_path / "m.keras", *out)
    assert "Missing argument" in error_of("detect", "--model", model_file, *out)
    assert not (tmp_path / "found").exists()


def test_detect_names_every_file_that_is_no_image(shapes, model_file, tmp_path, error_of):
    for name in ("text.jpg", "empty.png"):
        (tmp_path / name).write_text("no image" * (name == "text.jpg"))
    out = tmp_path / "found"
    message = error_of("detect", tmp_path, shapes, "--model", model_file, "--out", out)
    assert "2 of 5 images cannot be read:" in message
    assert f"{tmp_path / 'text.jpg'}: is not an image" in message
    assert f"{tmp_path / 'empty.png'}: the file is empty" in message
    assert not out.exists()


def test_detect_overwrites_no_photograph(shapes, model_file, tmp_path, error_of):
    photos = tmp_path / "photos"
    shutil.copytree(shapes, photos)
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    (tmp_path / "link").symlink_to(photos)
    Image.new("RGB", (64, 64)).save(tmp_path / "shapes_000001.jpg")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "shapes_000002.png").symlink_to(photos / "shapes_000002.png")
    for images, out, name in (
        (photos, photos, "shapes_000000.png"),
        (photos, tmp_path / "link", "shapes_000000.png"),
        (photos, tmp_path / "out", "shapes_000002.png"),
    ):
        message = error_of("detect", images, "--model", model_file, "--out", out)
        assert f"{out / name} would be overwritten" in message
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before
    (photos / "shapes_000001.jpg").write_bytes((tmp_path / "shapes_000001.jpg").read_bytes())
    single = photos / "shapes_000001.jpg"  # the result would be the other photograph's name
    message = error_of("detect", single, "--model", model_file, "--out", photos)
    assert "shapes_000001.png would be overwritten" in message
    assert "is a file" in error_of("detect", photos, "--model", model_file, "--out", single)


def test_pictures_have_different_names_whatever_the_case():
    files = ["a.jpg", "b/a.png", "a_2.jpg", "A.jpg", "c/a.jpg", "B.jpg"]
    names = _different_names([Path(file) for file in files])
    assert names == ["a.png", "a_2.png", "a_2_2.png", "A_3.png", "a_4.png", "B.png"]


def test_detect_says_that_the_model_has_a_threshold_of_its_own(shapes, model_file, tmp_path, rcnn):
    image = shapes / "shapes_000000.png"
    result = rcnn("detect", image, "--model", model_file, "--out", tmp_path, "--min-score", 0.01)
    assert result.exit_code == 0
    message = "--min-score 0.01: the model gives no detections of 0.05 or less\n"
    assert result.stderr.endswith(message)


# evaluate


def test_evaluate_prints_and_writes_scores(shapes, model_file, tmp_path, rcnn):
    out = tmp_path / "scores"
    result = rcnn("evaluate", model_file, "--data", shapes / "annotations.json", "--out", out)
    assert result.exit_code == 0, result.output
    scores = json.loads((out / "scores.json").read_text())
    lines = dict(line.split(maxsplit=1) for line in result.output.splitlines())
    assert set(lines) == set(scores) >= {"AP", "AP50", "APs", "AR", "AP/circle"}
    assert float(lines["AP"]) == pytest.approx(scores["AP"], abs=6e-4)
    assert scores["APl"] is None  # the images have 64 x 64 pixels: nothing in them is large
    assert lines["APl"] == "no ground truth"
    report = (out / "report.html").read_text()
    assert "<h2>Errors</h2>" in report
    assert "<h2>Confusions</h2>" in report
    errors = json.loads((out / "errors.json").read_text())
    assert errors["kind"] == "box"
    assert set(errors["errors"]) == {"circle", "triangle", "square", "star"}
    content = json.loads((shapes / "annotations.json").read_text())
    of_table = sum(row["objects"] for row in errors["errors"].values())
    of_matrix = [sum(errors["confusion"][name].values()) for name in errors["errors"]]
    assert of_table == sum(of_matrix) == len(content["annotations"])


@pytest.mark.parametrize("protocol", ["voc07", pytest.param("voc", marks=pytest.mark.slow)])
def test_evaluate_scores_as_pascal_voc(shapes, mask_model_file, tmp_path, protocol, rcnn):
    data = shapes / "annotations.json"
    arguments = "--data", data, "--protocol", protocol, "--out", tmp_path
    result = rcnn("evaluate", mask_model_file, *arguments)
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    lines = dict(line.split(maxsplit=1) for line in result.output.splitlines())
    boxes = {"mAP", "AP/circle", "AP/triangle", "AP/square", "AP/star"}
    assert set(lines) == set(scores) == boxes | {f"mask_{name}" for name in boxes}
    dataset = load_coco(data)
    rows = json.loads((tmp_path / "detections.json").read_text())
    for prefix, kind in (("", "box"), ("mask_", "mask")):
        expected = VocScores(dataset, rows, protocol=protocol, kind=kind).summary()
        assert scores[f"{prefix}mAP"] == pytest.approx(expected["mAP"])
    report = (tmp_path / "report.html").read_text()
    assert "<h2>Precision and recall</h2>" in report
    assert f"--protocol {protocol}" in report
    assert {"voc07": "Pascal VOC 2007 counts", "voc": "VOC 2010 to 2012"}[protocol] in report
    assert json.loads((tmp_path / "errors.json").read_text())["kind"] == "mask"


def test_evaluate_names_the_protocols(shapes, model_file, error_of):
    data = shapes / "annotations.json"
    message = error_of("evaluate", model_file, "--data", data, "--protocol", "voc2007")
    assert "'coco', 'voc07', 'voc'" in message


def test_evaluate_scores_boxes_and_masks(shapes, mask_model_file, tmp_path, rcnn):
    data = shapes / "annotations.json"
    result = rcnn("evaluate", mask_model_file, "--data", data, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "scores.json").read_text())
    lines = dict(line.split(maxsplit=1) for line in result.output.splitlines())
    boxes = {"AP", "AP50", "AP75", "AR", "AP/circle", "AP/star"}
    assert set(lines) == set(scores) >= boxes | {f"mask_{name}" for name in boxes}
    assert all(
        "segmentation" in row for row in json.loads((tmp_path / "detections.json").read_text())
    )
    assert rcnn("evaluate", mask_model_file, "--data", data).output == result.output


def test_evaluate_refuses_data_without_masks(shapes, mask_model_file, tmp_path, error_of):
    content = json.loads((shapes / "annotations.json").read_text())
    del content["annotations"][0]["segmentation"]
    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(content))
    message = error_of("evaluate", mask_model_file, "--data", bare, "--images", shapes)
    assert "shapes_000000.png: object 0 has no segmentation" in message


def test_evaluate_refuses_data_of_other_classes(shapes, model_file, tmp_path, error_of):
    content = json.loads((shapes / "annotations.json").read_text())
    content["categories"][0]["name"] = "disc"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    message = error_of("evaluate", model_file, "--data", other, "--images", shapes)
    assert "'circle'" in message


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*boxe?s? clipped")
def test_evaluate_takes_a_voc_folder_that_lacks_a_class(model_file, tmp_path, rcnn):
    voc_folder(tmp_path, "circle")
    result = rcnn("evaluate", model_file, "--data", tmp_path, "--split", "val")
    assert result.exit_code == 0, result.output
    lines = dict(line.split(maxsplit=1) for line in result.output.splitlines() if "AP/" in line)
    assert set(lines) == {"AP/circle", "AP/triangle", "AP/square", "AP/star"}
    assert lines["AP/star"] == "no ground truth"
    assert 0 <= float(lines["AP/circle"]) <= 1


@pytest.mark.parametrize("content", ["text", "zip"])
def test_files_that_are_no_models_take_one_line(content, shapes, model_file, tmp_path, error_of):
    path = tmp_path / "model.keras"
    path.write_bytes(b"no model")
    if content == "zip":
        path.write_bytes(model_file.read_bytes()[:-500])
    data = shapes / "annotations.json"
    for command in (("evaluate", path, "--data", data), ("export", path, "--out", tmp_path / "x")):
        assert error_of(*command) == f"Error: {path} is not a .keras file\n"


def test_a_model_of_an_unknown_class_is_no_detector(shapes, tmp_path, error_of):
    class Unknown(keras.Model):
        def call(self, x):
            return x

    path = tmp_path / "other.keras"
    model = Unknown()
    model(np.zeros((1, 2), np.float32))
    model.save(path)
    message = error_of("evaluate", path, "--data", shapes / "annotations.json")
    assert f"{path} holds a Unknown, not a detector" in message


def test_evaluate_refuses_a_model_that_is_no_detector(shapes, tmp_path, error_of):
    path = tmp_path / "dense.keras"
    keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)]).save(path)
    message = error_of("evaluate", path, "--data", shapes / "annotations.json")
    assert f"{path} holds a Sequential, not a detector" in message


# data check


def test_data_check_of_sound_data(shapes, rcnn):
    result = rcnn("data", "check", shapes / "annotations.json")
    assert result.exit_code == 0
    assert result.output == f"{shapes / 'annotations.json'}: 0 fatal, 0 repaired\n"


def test_data_check_lists_every_problem_and_fails_on_fatal_ones(shapes, tmp_path, rcnn):
    content = json.loads((shapes / "annotations.json").read_text())
    content["annotations"][0]["bbox"] = [0, 0, -3, 4]
    content["annotations"][1]["bbox"] = [10, 10, 0, 5]
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    result = rcnn("data", "check", path, "--images", shapes)
    assert result.exit_code == 1
    first, second, summary = sorted(
        result.output.splitlines(), key=lambda line: "FATAL" not in line
    )
    assert first.startswith(f"FATAL {path}: annotation 1: bbox = [0, 0, -3, 4]: ")
    assert second.startswith(f"repaired {path}: annotation 2: bbox = [10, 10, 0, 5]: ")
    assert summary == f"{path}: 1 fatal, 1 repaired"


def test_data_check_counts_many_problems_of_one_kind(shapes, tmp_path, rcnn):
    content = json.loads((shapes / "annotations.json").read_text())
    first = content["annotations"][0]
    for number in range(1000, 1030):
        content["annotations"].append(first | {"id": number, "bbox": [10, 10, 0, 5]})
        content["annotations"].append(first | {"id": number + 50, "bbox": [0, 0, -3, 4]})
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(content))
    lines = rcnn("data", "check", path, "--images", shapes).output.splitlines()
    for kind in ("repaired", "FATAL"):
        assert sum(line.startswith(f"{kind} {path}") for line in lines) == 10
    more = "repaired ... and 20 more like these: box without area dropped (--all lists them)"
    assert more in lines
    assert "FATAL ... and 20 more like these (--all lists them)" in lines
    assert lines[-1] == f"{path}: 30 fatal, 30 repaired"
    every = rcnn("data", "check", path, "--images", shapes, "--all").output.splitlines()
    assert len(every) == 61


@pytest.mark.parametrize("command", ["data check", "data pack", "evaluate", "proposals"])
def test_options_of_another_format_are_refused(command, shapes, tmp_path, error_of):
    file, folder = shapes / "annotations.json", tmp_path / "voc"
    folder.mkdir()
    voc_folder(folder, "cat")
    data = {"evaluate": ("shapes", "--data")}.get(command, ())
    out = ("--out", tmp_path / "out") if command in ("data pack", "proposals") else ()
    message = error_of(*command.split(), *data, file, "--split", "val", *out)
    assert (
        f"--split is for a Pascal VOC folder, which {file} is not; name the file of the split"
        in message
    )
    message = error_of(*command.split(), *data, folder, "--images", shapes, *out)
    assert f"--images is for a COCO or VIA file, which {folder} is not" in message


def voc_folder(root, name_of_class):
    """Images a (train) and b (val), each with one object whose box is over the border."""
    (root / "Annotations").mkdir()
    (root / "JPEGImages").mkdir()
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (20, 20)).save(root / "JPEGImages" / f"{name}.jpg")
        box = "<xmin>1</xmin><ymin>1</ymin><xmax>30</xmax><ymax>9</ymax>"
        (root / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename>"
            "<size><width>20</width><height>20</height></size>"
            f"<object><name>{name_of_class}</name><bndbox>{box}</bndbox></object></annotation>"
        )
    lists = {"train": "a\n", "val": "b\n", "trainval": "a\nb\n"}
    for split, text in lists.items():
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)


def test_data_check_reads_all_splits_of_a_voc_folder(tmp_path, rcnn):
    voc_folder(tmp_path, "cat")
    result = rcnn("data", "check", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"{tmp_path}: 0 fatal, 2 repaired"
    assert rcnn("data", "check", tmp_path, "--split", "val").output.endswith("1 repaired\n")


def test_data_check_of_a_missing_file(tmp_path, error_of):
    path = tmp_path / "none.json"
    assert error_of("data", "check", path) == f"Error: annotations {path}: no such file\n"


# train


def test_train_lists_every_error_of_the_configuration(tmp_path, error_of):
    path = tmp_path / "bad.yaml"
    path.write_text("optimiser: {}\n")
    message = error_of("train", path, "--set", "training.epochs=x")
    assert f"{path}: optimiser = {{}}: unknown key, did you mean 'optimizer'?" in message
    assert f"{path}: model: missing" in message
    assert "--set training.epochs: training.epochs = 'x': should be a valid integer" in message
    assert f"{path}.none: cannot be read" in error_of("train", f"{path}.none")


def test_traceback_is_there_on_request(tmp_path, rcnn):
    result = rcnn("--traceback", "train", tmp_path / "none.yaml")
    assert type(result.exception).__name__ == "ConfigurationError"


WITHOUT_TENSORFLOW = """
import sys, types
package = types.ModuleType("rcnn_keras")  # its own __init__ is none of the command's business
package.__path__ = [sys.argv.pop(1)]
sys.modules["rcnn_keras"] = package
from rcnn_keras.cli import main
from rcnn_keras.cli.detect import _different_names
try:
    main()
finally:
    assert not {"tensorflow", "keras", "matplotlib"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["--help"], "Usage:"),
        (["train", "none.yaml"], "Error: none.yaml: cannot be read"),
        (["detect", "none.png", "--model", "m", "--out", "o"], "Error: none.png: no such file"),
        (["evaluate", "none.keras", "--data", "d"], "Error: model file none.keras: no such file"),
        (["app", "none.keras"], "Error: model file none.keras: no such file"),
        (["data", "check", "none.json"], "Error: annotations none.json: no such file"),
    ],
)
def test_what_needs_no_tensorflow_does_not_import_it(arguments, output, tmp_path):
    package = Path(rcnn_keras.cli.__file__).parents[1]
    command = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(package), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert output in result.stdout + result.stderr
    assert "AssertionError" not in result.stderr
