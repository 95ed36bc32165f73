"""What is checked and prepared before any file is written."""

import numpy as np
import pytest

import rcnn_keras as rk
from rcnn_keras.export.fixed_size import checked_size, letterboxed
from rcnn_keras.export.litert import litert
from rcnn_keras.export.onnx_openvino import onnx, openvino


class Sides:
    """What `letterboxed` reads of a detector."""

    antialias, value_range, image_rule = False, "full", None

    def __init__(self, min_size, max_size, mean=(123.675, 116.28, 103.53)):
        self.min_size, self.max_size = min_size, max_size
        statistics = {"mean": mean, "std": (1.0, 1.0, 1.0), "padding": (0.0, 0.0, 0.0)}
        self.normalize = type("Normalize", (), statistics)


@pytest.fixture(scope="module")
def model(small_arguments):
    return rk.models.FasterRCNN(classes=("a", "b"), **small_arguments | {"max_size": 100})


@pytest.fixture(scope="module")
def rcnn():
    return rk.models.RCNN("alexnet", ("a",), crop_size=67, channels=(2,) * 5, units=2)


def test_the_size_is_the_models_in_landscape(model):
    assert checked_size(model, None) == (64, 128)
    assert checked_size(model, [96, np.int64(64)]) == (96, 64)


@pytest.mark.parametrize(
    ("size", "complaint"),
    [
        ((100, 64), r"multiples of 32 from 64 up; received \(100, 64\), near to which is \(96, 64"),
        ((32, 64), r"received \(32, 64\), near to which is \(64, 64\)"),
        (64, r"must be height and width in pixels; received 64"),
        ((64,), r"must be height and width in pixels; received \(64,\)"),
        ((64.0, 64), r"must be height and width in pixels"),
        ((-64, 64), r"must be height and width in pixels"),
    ],
)
def test_other_sizes_are_named(model, size, complaint, tmp_path):
    for write, ending in ((litert, "tflite"), (onnx, "onnx"), (openvino, "xml")):
        with pytest.raises(ValueError, match=complaint):
            write(model, tmp_path / f"model.{ending}", size=size)
    assert not list(tmp_path.iterdir())


def test_rcnn_has_no_size_of_its_own(rcnn, tmp_path):
    with pytest.raises(ValueError, match=r"^RCNN has no image size of its own: give size="):
        litert(rcnn, tmp_path / "model.tflite")


def test_paths_are_checked_before_anything_is_converted(model, tmp_path):
    there = tmp_path / "model.tflite"
    there.write_text("mine")
    with pytest.raises(FileExistsError, match=r"model\.tflite is there already; overwrite=True"):
        litert(model, there)
    with pytest.raises(ValueError, match=r"must end in \.tflite; received .*model\.lite"):
        litert(model, tmp_path / "model.lite")
    with pytest.raises(NotADirectoryError, match=r"model\.tflite is a file, not a folder"):
        litert(model, there / "model.tflite")
    with pytest.raises(TypeError, match="only detectors of this package are exported; got str"):
        litert("model.keras", tmp_path / "new.tflite")
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder\.tflite is a folder"):
        litert(model, tmp_path / "folder.tflite", overwrite=True)
    (tmp_path / "folder.tflite").rmdir()
    (tmp_path / "model.bin").write_text("mine")
    with pytest.raises(FileExistsError, match=r"model\.bin is there already"):
        openvino(model, tmp_path / "model.xml")
    assert there.read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.tflite"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"quantize": "full_int8"}, "'full_int8'. Everything in 8 bits is not offered: boxes and"),
        ({"quantize": "int8"}, "needs calibrate: a folder of images, or a dataset"),
        ({"quantize": "int8", "calibrate": "empty"}, "calibrate: no image in .*empty"),
        ({"quantize": "int8", "calibrate": "nowhere"}, "calibrate: .*nowhere is not a folder"),
        ({"quantize": "int8", "calibrate": "broken"}, r"calibrate: .*image\.png: "),
        ({"quantize": "dynamic", "calibrate": "empty"}, "calibrate is for quantize='int8' alone"),
        ({"calibrate": "empty"}, "calibrate is for quantize='int8' alone, not for None"),
    ],
)
def test_what_to_quantize_is_checked_before_anything_is_converted(
    model, arguments, complaint, tmp_path
):
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "image.png").write_bytes(b"no image")
    if "calibrate" in arguments:
        arguments = arguments | {"calibrate": tmp_path / arguments["calibrate"]}
    with pytest.raises(ValueError, match=complaint):
        litert(model, tmp_path / "model.tflite", **arguments)
    assert not (tmp_path / "model.tflite").exists()


def test_a_file_takes_a_proposal_at_least(rcnn, tmp_path):
    with pytest.raises(ValueError, match="num_proposals must be at least 1; received 0"):
        litert(rcnn, tmp_path / "m.tflite", size=(64, 64), num_proposals=0)
    assert list(tmp_path.iterdir()) == []


def test_calibration_images_of_rcnn_would_need_proposals(rcnn, tmp_path):
    rk.data.draw_shapes(1, size=(64, 64), out=tmp_path)
    with pytest.raises(ValueError, match="calibration images have none for RCNN"):
        litert(rcnn, tmp_path / "m.tflite", size=(64, 64), quantize="int8", calibrate=tmp_path)


def test_a_missing_package_is_named_with_its_extra(model, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"needs ai-edge-quantizer: pip install 'rcnn-keras\[lit"):
        litert(model, tmp_path / "model.tflite", quantize="float16")
    with pytest.raises(ImportError, match=r"needs onnx, tf2onnx: pip install 'rcnn-keras\[onnx\]'"):
        onnx(model, tmp_path / "model.onnx")
    with pytest.raises(ImportError, match=r"needs openvino: pip install 'rcnn-keras\[openvino\]'"):
        openvino(model, tmp_path / "model.xml")


def test_an_image_lies_in_the_corner_of_its_padding():
    """20 x 40 pixels at min_size 40: twice as large, in 64 x 96."""
    image = np.full((20, 40, 3), 9, np.uint8)
    canvas, scale = letterboxed(image, Sides(40, 96), (64, 96))
    assert (canvas.shape, canvas.dtype, scale) == ((1, 64, 96, 3), np.uint8, (0.5, 0.5))
    assert (canvas[0, :40, :80] == 9).all()
    assert (canvas[0, 40:] == [124, 116, 104]).all()
    assert (canvas[0, :, 80:] == [124, 116, 104]).all()


@pytest.mark.parametrize(
    ("sides", "size", "new"),
    [
        ((40, 96), (64, 64), (32, 64)),  # 40 x 80 does not fit: 64 / 80 of it
        ((None, None), (64, 96), (20, 40)),  # R-CNN's images keep their size
        ((None, None), (16, 96), (16, 32)),
    ],
)
def test_an_image_is_made_to_fit(sides, size, new):
    image = np.full((20, 40, 3), 9, np.uint8)
    canvas, scale = letterboxed(image, Sides(*sides), size)
    filled = (canvas[0] == 9).all(-1)
    assert (filled.any(1).sum(), filled.any(0).sum()) == new
    assert scale == (40 / new[1], 20 / new[0])
