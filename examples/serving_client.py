"""Ask TensorFlow Serving for detections over gRPC.

    python examples/serving_client.py photo.jpg other.png --model cells --server localhost:8500

Needs tensorflow-serving-api and nothing of rcnn_keras. JPEG and PNG files are sent as they are, so
a photograph that its camera marked as turned (EXIF) is to be turned first.
"""

import argparse
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

UNLIMITED = [("grpc.max_receive_message_length", -1)]  # masks soon pass the default of 4 MB


def detect(files: list[Path], model: str, server: str, timeout: float) -> dict[str, np.ndarray]:
    """Return the detections of one batch of files, padded; see the table of signatures."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = "image_bytes"
    contents = [file.read_bytes() for file in files]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(contents))
    with grpc.insecure_channel(server, options=UNLIMITED) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout).outputs
    return {name: tf.make_ndarray(value) for name, value in outputs.items()}


def main() -> None:
    """Read the command line, and print a line for each detection."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--server", default="localhost:8500")
    parser.add_argument("--timeout", type=float, default=60, help="seconds")
    parser.add_argument("--min-score", type=float, default=0.5)
    args = parser.parse_args()
    found = detect(args.images, args.model, args.server, args.timeout)
    for file, count, *rows in zip(
        args.images,
        found["num_detections"],
        *(found[key] for key in ("labels", "scores", "boxes")),
        strict=True,
    ):
        for label, score, box in zip(*(row[:count] for row in rows), strict=True):
            if score >= args.min_score:
                corners = " ".join(f"{side:.1f}" for side in box)
                print(f"{file}: class {label}, score {score:.3f}, x1 y1 x2 y2 {corners}")


if __name__ == "__main__":
    main()
