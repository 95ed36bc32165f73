"""What a server does with a SavedModel, in a process that has neither Keras nor rcnn_keras.

    python tensorflow_alone.py SAVED_MODEL FOLDER CLIENT

TensorFlow Serving's binary is not at hand. As it does, this loads the graph into a session, finds
tensors by the names in the signatures, answers PredictRequest messages, replays the warm-up log,
turns its two forms of JSON into tensors, and listens on a port for CLIENT, a Python file. FOLDER
has a.png, b.png, c.png and bad/*; it gets answers.json.
"""

import base64
import contextlib
import io
import json
import runpy
import sys
from concurrent import futures
from pathlib import Path

BLOCKED = ("keras", "rcnn_keras", "tf_keras")

sys.modules.update(dict.fromkeys(BLOCKED))  # None: importing them fails

import grpc  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)


class Server(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers PredictRequest messages by the signatures of a SavedModel."""

    def __init__(self, folder):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            meta = tf.compat.v1.saved_model.load(self.session, ["serve"], folder)
        self.signatures = meta.signature_def

    def run(self, name, values):
        signature = self.signatures[name]
        if set(values) != set(signature.inputs):
            raise ValueError(f"inputs {set(values)} are not {set(signature.inputs)}")
        feeds = {signature.inputs[key].name: value for key, value in values.items()}
        fetches = {key: info.name for key, info in signature.outputs.items()}
        return self.session.run(fetches, feeds)

    def predict(self, request):
        name = request.model_spec.signature_name or "serving_default"
        values = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
        return self.run(name, values)

    def Predict(self, request, context):
        response = predict_pb2.PredictResponse()
        for key, value in self.predict(request).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return response

    def rest(self, text):
        """Answer the JSON of TensorFlow Serving's REST API, rows ("instances") or columns."""
        body = json.loads(text)
        name = body.get("signature_name", "serving_default")
        keys = list(self.signatures[name].inputs)
        if "instances" in body:
            rows = [decoded(row) for row in body["instances"]]
            rows = [row if isinstance(row, dict) else {keys[0]: row} for row in rows]
            values = {key: [row[key] for row in rows] for key in rows[0]}
            outputs = self.run(name, values)
            assert {len(value) for value in outputs.values()} == {len(rows)}
            columns = {key: value.tolist() for key, value in outputs.items()}
            return {
                "predictions": [
                    {key: column[i] for key, column in columns.items()} for i in range(len(rows))
                ]
            }
        values = decoded(body["inputs"])
        values = values if isinstance(values, dict) else {keys[0]: values}
        return {"outputs": {k: v.tolist() for k, v in self.run(name, values).items()}}


def decoded(value):
    """Replace every {"b64": text} by the bytes that it stands for."""
    if isinstance(value, dict):
        if list(value) == ["b64"]:
            return base64.b64decode(value["b64"])
        return {key: decoded(item) for key, item in value.items()}
    return [decoded(item) for item in value] if isinstance(value, list) else value


def request_of(name, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "tiny"
    request.model_spec.signature_name = name
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value))
    return request


def error_of(function, *arguments):
    try:
        function(*arguments)
    except tf.errors.OpError as error:
        return error.message
    return None


def main(saved_model, folder, client):
    server = Server(saved_model)
    files = {path.stem: path.read_bytes() for path in sorted(folder.glob("*.png"))}
    pixels = {name: tf.io.decode_png(data).numpy() for name, data in files.items()}
    b64 = {name: {"b64": base64.b64encode(data).decode()} for name, data in files.items()}
    answers = {"signatures": sorted(server.signatures)}

    log = Path(saved_model, "assets.extra", "tf_serving_warmup_requests")
    answers["warm_up"] = []
    for record in tf.data.TFRecordDataset(str(log)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        server.predict(request)
        answers["warm_up"].append(request.model_spec.signature_name)

    def plain(outputs):
        return {key: value.tolist() for key, value in outputs.items()}

    answers["pixels"] = plain(
        server.predict(request_of("serving_default", images=pixels["a"][None]))
    )
    eight = np.stack([np.roll(pixels["a"], 9 * shift, axis=0) for shift in range(8)])
    answers["eight"] = plain(server.predict(request_of("serving_default", images=eight)))
    answers["files"] = plain(
        server.predict(request_of("image_bytes", image_bytes=list(files.values())))
    )
    rest = {
        "rows": {"signature_name": "image_bytes", "instances": [b64["a"]]},
        "named rows": {"signature_name": "image_bytes", "instances": [{"image_bytes": b64["a"]}]},
        "columns": {"signature_name": "image_bytes", "inputs": {"image_bytes": [b64["a"]]}},
        "a column": {"signature_name": "image_bytes", "inputs": [b64["a"]]},
        "pixel rows": {"instances": [{"images": pixels["a"].tolist()}]},
    }
    answers["rest"] = {key: server.rest(json.dumps(body)) for key, body in rest.items()}

    bad = {path.name: path.read_bytes() for path in sorted((folder / "bad").iterdir())}
    answers["errors"] = {
        name: error_of(server.run, "image_bytes", {"image_bytes": [data]})
        for name, data in bad.items()
    }
    answers["errors"]["one of three"] = error_of(
        server.run, "image_bytes", {"image_bytes": [files["a"], files["b"], b"no image"]}
    )
    answers["errors"]["no files"] = error_of(server.run, "image_bytes", {"image_bytes": []})
    empty = pixels["a"][None][:0]
    answers["errors"]["no images"] = error_of(server.run, "serving_default", {"images": empty})
    flat = pixels["a"][None][:, :0]
    answers["errors"]["no pixels"] = error_of(server.run, "serving_default", {"images": flat})

    listener = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(server, listener)
    port = listener.add_insecure_port("127.0.0.1:0")
    listener.start()
    sys.argv = [client, str(folder / "a.png"), str(folder / "b.png"), "--model", "tiny"]
    sys.argv += ["--server", f"127.0.0.1:{port}", "--min-score", "0"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(client, run_name="__main__")
    listener.stop(None)
    answers["client"] = printed.getvalue()
    answers["imported"] = sorted(
        {m.split(".")[0] for m, module in sys.modules.items() if module} & set(BLOCKED)
    )
    (folder / "answers.json").write_text(json.dumps(answers))


main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
