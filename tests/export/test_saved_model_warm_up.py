"""Warm-up requests with proposals; `test_serving_contract` replays those without."""

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.export.saved_model import write_requests


def test_each_signature_gets_the_image_and_a_proposal(tmp_path):
    apis = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    proposals = tf.TensorSpec((None, None, 4), tf.float32)
    signatures = {
        "serving_default": {
            "images": tf.TensorSpec((None, None, None, 3), tf.uint8),
            "proposals": proposals,
        },
        "image_bytes": {"image_bytes": tf.TensorSpec((None,), tf.string), "proposals": proposals},
    }
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_requests(tmp_path, [image], signatures)
    path = tmp_path / "assets.extra" / "tf_serving_warmup_requests"
    requests = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        request = apis.PredictionLog.FromString(record).predict_log.request
        values = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        requests[request.model_spec.signature_name] = values
    assert list(requests) == ["serving_default", "image_bytes"]
    np.testing.assert_array_equal(requests["serving_default"]["images"], image[None])
    (file,) = requests["image_bytes"]["image_bytes"]
    np.testing.assert_array_equal(tf.io.decode_png(file), image)
    for values in requests.values():
        np.testing.assert_array_equal(values["proposals"], [[[0, 0, 30, 20]]])
