"""ONNX and OpenVINO models, and files that take proposals, against the detector."""

import json

import keras
import numpy as np
import pytest

import rcnn_keras as rk
from rcnn_keras.export.litert import litert
from rcnn_keras.export.onnx_openvino import onnx, openvino

pytestmark = pytest.mark.slow
SIZE = (64, 96)
SHARED = {"box_score_thresh": 0.0, "box_detections_per_img": 9}


@pytest.fixture(scope="module")
def mask_rcnn(small_arguments):
    keras.utils.set_random_seed(0)
    changes = {"min_size": 64, "max_size": 96}
    return rk.models.MaskRCNN(classes=("a", "b"), **small_arguments | changes | SHARED)


@pytest.fixture(scope="module", params=["Fast R-CNN", "R-CNN"])
def with_proposals(request):
    keras.utils.set_random_seed(0)
    if request.param == "Fast R-CNN":
        sizes = {"min_size": 64, "max_size": 96, "box_units": 16}
        return rk.models.FastRCNN("zf", ("a", "b"), **sizes, **SHARED)
    sizes = {"crop_size": 67, "context": 4, "channels": (4, 6, 6, 6, 6), "units": 8}
    return rk.models.RCNN("alexnet", ("a", "b"), classifier="softmax", **sizes, **SHARED)


def inputs_of(model):
    rng = np.random.default_rng(0)
    inputs = {"images": rng.integers(0, 255, (1, *SIZE, 3), dtype="uint8")}
    if model.takes_proposals:
        low = rng.uniform(0, 50, (1, 40, 2))
        boxes = np.concatenate([low, low + rng.uniform(2, 40, low.shape)], -1)
        inputs["proposals"] = boxes.astype("float32")
        inputs["num_proposals"] = np.int32([31])
    return inputs


def assert_finds(found, model, inputs):
    expected = model.predict(inputs, verbose=0)
    assert expected["num_detections"][0] > 3
    np.testing.assert_array_equal(found["num_detections"], expected["num_detections"])
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-2)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-4)
    if model.has_masks:
        np.testing.assert_allclose(found["masks"], expected["masks"], atol=1e-3)


def run_onnx(path, inputs):
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    metadata = session.get_modelmeta().custom_metadata_map
    return dict(zip(names, session.run(names, inputs), strict=True)), metadata


def run_openvino(path, inputs):
    package = pytest.importorskip("openvino")
    model = package.Core().read_model(path)
    metadata = {name: model.get_rt_info(name).astype(str) for name in ("classes", "detector")}
    compiled = package.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = compiled(inputs)
    return {o.get_any_name(): outputs[o] for o in compiled.outputs}, metadata


def run_litert(path, inputs):
    package = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = package.Interpreter(str(path))
    interpreter.allocate_tensors()
    return interpreter.get_signature_runner()(**inputs), None


FORMATS = {
    "onnx": (onnx, "model.onnx", run_onnx, "tf2onnx"),
    "openvino": (openvino, "model.xml", run_openvino, "openvino"),
    "litert": (litert, "model.tflite", run_litert, "ai_edge_litert"),
}


@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_detections_are_those_of_keras(kind, mask_rcnn, tmp_path):
    write, name, run, package = FORMATS[kind]
    pytest.importorskip(package)
    path = write(mask_rcnn, tmp_path / name)
    inputs = inputs_of(mask_rcnn)
    found, metadata = run(path, inputs)
    assert_finds(found, mask_rcnn, inputs)
    assert json.loads(metadata["classes"]) == ["a", "b"]
    assert json.loads(metadata["detector"])["size"] == list(SIZE)
    assert {p.suffix for p in tmp_path.iterdir()} <= {".onnx", ".xml", ".bin"}


@pytest.mark.parametrize("kind", FORMATS)
def test_proposals_are_an_input(kind, with_proposals, tmp_path):
    write, name, run, package = FORMATS[kind]
    pytest.importorskip(package)
    path = write(with_proposals, tmp_path / name, size=SIZE, num_proposals=40)
    inputs = inputs_of(with_proposals)
    assert_finds(run(path, inputs)[0], with_proposals, inputs)
