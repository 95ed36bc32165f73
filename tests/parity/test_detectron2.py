"""Detections of weights from a seed, beside what Detectron2 computed from them.

The numbers and the program that remakes the weights lie beside the repository, where the other
systems' numbers are; without them the tests are skipped.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.convert import detectron2
from rcnn_keras.data.inputs import input_batches
from rcnn_keras.data.pipeline import Batches

GOLDENS = Path(__file__).parents[3] / "shared" / "oracle" / "detectron2"

CASES = (
    "mask_rcnn_R_50_FPN",
    "faster_rcnn_R_50_C4",
    "mask_rcnn_R_50_C4",
    "faster_rcnn_R_50_DC5",
    "mask_rcnn_X_101_32x8d_FPN",
    "mask_rcnn_R_50_FPN_gn",
    "cascade_mask_rcnn_R_50_FPN",
    "keypoint_rcnn_R_50_FPN",
)

pytestmark = [
    pytest.mark.slow,  # whole networks at 800 pixels
    pytest.mark.skipif(not GOLDENS.is_dir(), reason=f"no numbers of Detectron2 at {GOLDENS}"),
]


@pytest.fixture(scope="module")
def seeded():
    spec = importlib.util.spec_from_file_location("seeded_pkl", GOLDENS / "seeded_pkl.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=CASES)
def case(request, seeded):
    """The model of a case and Detectron2's numbers."""
    config = seeded.load_case(request.param)["config_file"]
    model = detectron2.load(seeded.seeded_state(request.param), config)
    model.run_eagerly = True
    with np.load(GOLDENS / f"{request.param}.npz") as arrays:
        return model, dict(arrays)


@pytest.mark.parametrize("image", [0, 1])
def test_features_and_detections_are_detectron2s(case, seeded, image):
    model, arrays = case
    expected = {
        name.removeprefix(f"img{image}/"): values
        for name, values in arrays.items()
        if name.startswith(f"img{image}/")
    }
    rgb = seeded.test_image(image)[..., ::-1]
    batches = model._sized(Batches(model.dataset_of(rgb), 1))
    inputs = {name: tf.constant(value) for name, value in next(input_batches(batches)).items()}
    extracted = model.extract_features(inputs, training=False)
    assert tuple(extracted["images"].shape[1:3]) == tuple(expected["padded_size"])
    maps = sorted({name.split("/")[1] for name in expected if name.startswith("feature/")})
    for level, name in enumerate(maps):
        key = next(k for k in expected if k.startswith(f"feature/{name}/sub"))
        step, values = int(key.rpartition("sub")[2]), expected[key]
        found = extracted["features"][level].numpy()[0, ::step, ::step, :4].transpose(2, 0, 1)
        values = values.reshape(found.shape)
        np.testing.assert_allclose(found, values, atol=1e-4 * np.abs(values).max())
    detections = {k: v.numpy()[0] for k, v in model.detections_of(extracted).items()}
    count = int(detections["num_detections"])
    assert count == len(expected["det_boxes_network"])
    # Of the same label, the nearest box: neighbours whose scores nearly tie may change places.
    cost = np.abs(detections["boxes"][:count] - expected["det_boxes_network"][:, None]).max(-1)
    cost += 1e4 * (detections["labels"][:count] != expected["det_classes"][:, None])
    order = cost.argmin(axis=1)
    assert sorted(order) == list(range(count))
    for name, values, atol in (
        ("boxes", expected["det_boxes_network"], 0.05),
        ("scores", expected["det_scores"], 5e-4),
        ("labels", expected["det_classes"], 0),
        ("masks", expected.get("det_masks"), 1e-3),
        ("keypoints", expected.get("det_keypoints_network"), 0.1),
    ):
        if values is not None:
            np.testing.assert_allclose(detections[name][order], values, atol=atol, rtol=0)
