"""LiteRT files, run without TensorFlow, against the detector that they were made from."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.export import litert as litert_module
from rcnn_keras.export.fixed_size import letterboxed
from rcnn_keras.export.litert import litert, quantized

litert_interpreter = pytest.importorskip("ai_edge_litert.interpreter")
TOOL = Path(__file__).parents[2] / "examples" / "detect_litert.py"
SIZE = (64, 96)
BUILTINS = (
    "ADD AVERAGE_POOL_2D BROADCAST_TO CAST CEIL CONCATENATION CONV_2D CUMSUM "
    "DEPTHWISE_CONV_2D DEQUANTIZE DIV EQUAL EXP EXPAND_DIMS FLOOR FLOOR_DIV FLOOR_MOD "
    "FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH LESS LESS_EQUAL LOG "
    "LOGICAL_AND LOGICAL_OR LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MUL NEG "
    "NON_MAX_SUPPRESSION_V4 PACK PAD PADV2 QUANTIZE RANGE REDUCE_MAX REDUCE_MIN RELU "
    "RESHAPE RSQRT SELECT SELECT_V2 SHAPE SIGN SLICE SOFTMAX SPLIT SPLIT_V SQRT SQUEEZE "
    "STRIDED_SLICE SUB SUM TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK WHILE "
)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return rk.data.draw_shapes(3, size=(64, 64), out=tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def model(scenes, small_arguments):
    keras.utils.set_random_seed(0)
    changes = {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0, "box_nms_thresh": 0.3}
    changes["backbone_width"] = 1.0
    detector = rk.models.MaskRCNN(classes=scenes.classes, **small_arguments | changes)
    # Scores far apart, as a trained detector's are: rounding then changes no order.
    kernel, bias = detector.box_head.class_logits.get_weights()
    detector.box_head.class_logits.set_weights([kernel * 300, bias])
    return detector


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return litert(model, tmp_path_factory.mktemp("files") / "model.tflite")


def run(content, **inputs):
    given = (
        {"model_content": content} if isinstance(content, bytes) else {"model_path": str(content)}
    )
    interpreter = litert_interpreter.Interpreter(**given)
    interpreter.allocate_tensors()
    return interpreter.get_signature_runner()(**inputs)


def operators(content):
    interpreter = litert_interpreter.Interpreter(str(content))
    return {op["op_name"] for op in interpreter._get_ops_details()}


def assert_finds(found, expected):
    np.testing.assert_array_equal(found["num_detections"], expected["num_detections"])
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-2)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)


def test_detections_are_those_of_keras(file, model, scenes):
    for record in scenes:
        image, _ = letterboxed(record.path, model, SIZE)
        expected = model.predict(image, verbose=0)
        found = run(file, images=image)
        assert expected["num_detections"][0] > 1
        assert_finds(found, expected)
        np.testing.assert_allclose(found["masks"], expected["masks"], atol=1e-3)


def test_a_file_says_what_goes_in_and_comes_out(file, model):
    interpreter = litert_interpreter.Interpreter(str(file))
    (image,) = interpreter.get_input_details()
    assert (tuple(image["shape"]), image["dtype"]) == ((1, *SIZE, 3), np.uint8)
    runner = interpreter.get_signature_runner()
    outputs = {k: (tuple(v["shape"]), v["dtype"]) for k, v in runner.get_output_details().items()}
    assert outputs == {
        "boxes": ((1, 5, 4), np.float32),
        "scores": ((1, 5), np.float32),
        "labels": ((1, 5), np.int32),
        "num_detections": ((1,), np.int32),
        "masks": ((1, 5, 28, 28), np.float32),
    }
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt").decode().splitlines() == list(model.classes)
        assert json.loads(archive.read("detector.json")) == {
            "size": list(SIZE),
            "padding": [124, 116, 104],
            "min_size": 64,
            "max_size": 96,
            "score_threshold": 0.0,
            "antialias": False,
            "masks": True,
            "keypoints": None,
            "image_rule": None,
            "quantize": None,
        }


def test_operators_are_builtins(file):
    found = operators(file) - {"DELEGATE"}
    assert "NON_MAX_SUPPRESSION_V4" in found
    assert found <= set(BUILTINS.split())


def test_nothing_is_left_beside_the_file(file, model):
    assert list(file.parent.iterdir()) == [file]
    before = file.read_bytes()
    with pytest.raises(FileExistsError):
        litert(model, file)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("quantize", "share", "pixels"),
    [("float16", 0.55, 0.2), ("dynamic", 0.35, 3), ("int8", 0.4, 6)],
)
def test_smaller_numbers_find_nearly_the_same(file, model, scenes, quantize, share, pixels):
    images = [{"images": letterboxed(r.path, model, SIZE)[0]} for r in scenes]
    content = file.read_bytes()
    smaller = quantized(content, quantize, images)
    assert len(smaller) < share * len(content)
    for inputs in images:
        expected, found = run(file, **inputs), run(smaller, **inputs)
        best, count = expected["boxes"][0, 0], found["num_detections"][0]
        nearest = np.abs(found["boxes"][0, :count] - best).max(axis=1).min()
        assert nearest < pixels


def test_predictors_and_what_follows_stay_in_float(file, model, scenes):
    images = [{"images": letterboxed(r.path, model, SIZE)[0]} for r in scenes]
    interpreter = litert_interpreter.Interpreter(
        model_content=quantized(file.read_bytes(), "int8", images)
    )
    tensors = {t["index"]: t for t in interpreter.get_tensor_details()}
    kinds = {}
    for op in interpreter._get_ops_details():
        if op["op_name"] in ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV"):
            out = tensors[op["outputs"][0]]
            inputs = [tensors[k] for k in op["inputs"] if k in tensors]  # -1 where there is no bias
            weights = [tensor for tensor in inputs if len(tensor["shape"]) > 1][-1]
            assert weights["dtype"] is np.int8, out["name"]
            kinds[out["name"]] = out["dtype"]
        if op["op_name"] == "NON_MAX_SUPPRESSION_V4":
            assert tensors[op["inputs"][0]]["dtype"] is np.float32
    predictors = [n for n in kinds if "objectness" in n or "deltas" in n or "logits" in n]
    assert len(predictors) == 5 + 5 + 1 + 1 + 1
    assert {kinds[name] for name in predictors} == {np.float32}
    assert {kind for name, kind in kinds.items() if name not in predictors} == {np.int8}
    assert len(kinds) > 40


def test_the_layers_whose_names_are_promised_are_there(model):
    table = litert_module.__doc__
    for layer in model.layers:
        if layer.weights:
            assert f"| `{layer.name}` |" in table
            assert f"{layer.name}" in litert_module.TRUNKS
    heads = {
        model.rpn_head: ("objectness", "deltas"),
        model.box_head: ("class_logits", "box_deltas"),
        model.mask_head: ("upsample", "mask_logits"),
    }
    for head, names in heads.items():
        for name in names:
            assert getattr(head, name).name == name
            assert f"`{name}`" in table


@pytest.mark.slow
def test_an_int8_file_is_calibrated_with_a_folder(model, scenes, tmp_path):
    folder = Path(scenes[0].path).parent
    path = litert(model, tmp_path / "m.tflite", size=(64, 64), quantize="int8", calibrate=folder)
    image, _ = letterboxed(scenes[0].path, model, (64, 64))
    assert run(path, images=image)["num_detections"][0] > 0
    assert "QUANTIZE" in operators(path)
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("detector.json"))["quantize"] == "int8"


ALONE = """
import runpy, sys
for name in ("tensorflow", "keras", "rcnn_keras"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_tool_detects_without_tensorflow(file, model, scenes, tmp_path):
    with Image.open(scenes[0].path) as picture:
        picture.resize((128, 128), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            ALONE,
            TOOL,
            file,
            "large.png",
            "o.png",
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = model.detect(np.asarray(Image.open(tmp_path / "large.png")))[0].above(0.5)
    assert len(found) > 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == found.class_names
    np.testing.assert_allclose([[float(v) for v in r[2:]] for r in rows], found.boxes, atol=4)
    with Image.open(tmp_path / "o.png") as drawn:
        assert drawn.size == (128, 128)
        assert (255, 0, 0) in {color for _, color in drawn.getcolors(128 * 128)}
