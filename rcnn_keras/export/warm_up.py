"""Requests that TensorFlow Serving runs by itself before it takes those of others.

The first request of each kind pays for what TensorFlow sets up. The server reads
`assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog` messages.
"""

import importlib.util
import io
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")


def require_serving_api() -> None:
    """Raise an ImportError that says how to get tensorflow-serving-api, if it is missing."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise ImportError(
            "warm-up requests are messages of TensorFlow Serving: pip install "
            "'rcnn-keras[serving]', or pip install tensorflow-serving-api"
        )


def write_requests(
    folder: Path, images: list[np.ndarray], signatures: dict[str, dict[str, tf.TensorSpec]]
) -> None:
    """Write a request of each signature for each image into a SavedModel.

    A detector that takes proposals gets one, the whole image.

    Args:
        folder: the SavedModel.
        images: `(H, W, 3)` uint8 RGB.
        signatures: the inputs of each.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    path = folder / WARM_UP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for image in images:
            height, width = image.shape[:2]
            whole = np.array([[[0, 0, width, height]]], np.float32)
            values = {tf.uint8: image[None], tf.string: [_png(image)], tf.float32: whole}
            for name, inputs in signatures.items():
                request = predict_pb2.PredictRequest()
                request.model_spec.name = "warm_up"  # the server looks at the signature alone
                request.model_spec.signature_name = name
                for key, spec in inputs.items():
                    value = tf.make_tensor_proto(values[spec.dtype], spec.dtype)
                    request.inputs[key].CopyFrom(value)
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                file.write(log.SerializeToString())


def _png(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()
