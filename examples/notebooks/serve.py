# %% [markdown]
# # Serve
#
# A trained detector leaves Python: as a SavedModel for TensorFlow Serving, with a client that sends it image files, and
# as one LiteRT file for phones. What comes out is compared with `detect` each time.
#
# It runs as it is, on drawn scenes. For **your own detector and pictures**, change the next cell. Needs
# `pip install 'rcnn-keras[serving,litert]'`.

# %% tags=["parameters"]
photos = None  # <- a list of paths of your own pictures; None draws scenes
detector = "shapes"  # a name of rk.models.list_presets(), or a .keras file such as "mine.keras"
size = (128, 160)  # height and width that the LiteRT file takes

# %%
import json
import zipfile
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import rcnn_keras as rk

tf.get_logger().setLevel("ERROR")
if photos is None:
    scenes = rk.data.draw_shapes(2, size=(128, 160), seed=41, out="scenes")
    photos = [record.path for record in scenes]
model = rk.models.from_preset(detector)
expected = model.detect(photos)

# %% [markdown]
# ## A SavedModel
#
# A folder that needs TensorFlow alone. `serving_default` takes pixels, `image_bytes` takes JPEG and PNG files of any
# size; both resize in the graph and give boxes in the pixels of what came in. A server finds the versions of a model as
# numbered folders.

# %%
model.export("models/detector/1")
saved = tf.saved_model.load("models/detector/1")
for name, signature in saved.signatures.items():
    _, inputs = signature.structured_input_signature
    print(name, *(f"{key} {spec.shape} {spec.dtype.name}" for key, spec in inputs.items()))
print("gives", *saved.signatures["image_bytes"].structured_outputs)

# %% [markdown]
# With Docker, TensorFlow Serving is one line away; `rcnn export --serve-config` writes a compose file for it.
#
# ```sh
# docker run -p 8500:8500 -p 8501:8501 -v $PWD/models/detector:/models/detector \
#   -e MODEL_NAME=detector tensorflow/serving
# ```
#
# So that the client below has somebody to ask here, this stand-in answers as the server does, for this one call.


# %%
class Server(prediction_service_pb2_grpc.PredictionServiceServicer):
    def Predict(self, request, context):
        signature = saved.signatures[request.model_spec.signature_name]
        inputs = {key: tf.constant(tf.make_ndarray(t)) for key, t in request.inputs.items()}
        response = predict_pb2.PredictResponse()
        for key, value in signature(**inputs).items():
            response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
        return response


server = grpc.server(futures.ThreadPoolExecutor(1))
prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Server(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()

# %% [markdown]
# ## The client
#
# It knows nothing of rcnn_keras. Image files are sent as they are. `examples/serving_client.py` is the same as a program.


# %%
def ask(files, address, model_name="detector", timeout=60):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model_name
    request.model_spec.signature_name = "image_bytes"
    contents = [Path(file).read_bytes() for file in files]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(contents))
    unlimited = [("grpc.max_receive_message_length", -1)]  # masks soon pass the default of 4 MB
    with grpc.insecure_channel(address, options=unlimited) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        outputs = stub.Predict(request, timeout).outputs
    return {key: tf.make_ndarray(value) for key, value in outputs.items()}


answer = ask(photos, f"127.0.0.1:{port}")
server.stop(None)
for i, found in enumerate(expected):
    count = answer["num_detections"][i]
    largest = np.abs(answer["boxes"][i, :count] - found.boxes).max(initial=0)
    print(f"{Path(photos[i]).name}: {count} detections, largest difference {largest:.1e} pixels")

# %% [markdown]
# Over REST the same is one JSON message to `localhost:8501/v1/models/detector:predict`, with the file in base64:
#
# ```sh
# curl localhost:8501/v1/models/detector:predict \
#   -d "{\"signature_name\": \"image_bytes\", \"instances\": [{\"b64\": \"$(base64 -w0 photo.jpg)\"}]}"
# ```
#
# ## A LiteRT file
#
# One file for phones, with LiteRT's built-in operators alone; class names and how to prepare an image are inside it.
# `quantize="float16"` makes it half as large and `"int8"` a quarter, see `docs/guides/litert-onnx-openvino.md`.

# %%
model.export("detector.tflite", size=size)
with zipfile.ZipFile("detector.tflite") as archive:  # a model and an archive at once
    classes = archive.read("labels.txt").decode().splitlines()
    about = json.loads(archive.read("detector.json"))
print(f"{Path('detector.tflite').stat().st_size / 1e6:.1f} MB, finds", *classes)
print(about)

# %% [markdown]
# What a program on a phone does, in numpy: resize so that the image fits, pad, run, and take the boxes back.

# %%
interpreter = Interpreter("detector.tflite")
interpreter.allocate_tensors()
run = interpreter.get_signature_runner()

image = Image.open(photos[0]).convert("RGB")
height, width = about["size"]
scale = min(height / image.height, width / image.width)
if about["min_size"]:  # as the detector resizes
    sides = image.size
    scale = min(scale, about["min_size"] / min(sides), about["max_size"] / max(sides))
small = image.resize([max(1, int(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
canvas = Image.new("RGB", (width, height), tuple(about["padding"]))
canvas.paste(small)
found = run(images=np.asarray(canvas)[None])
back = np.tile(np.divide(image.size, small.size), 2)
for i in range(found["num_detections"][0]):
    if found["scores"][0, i] >= 0.5:
        box = (found["boxes"][0, i] * back).round(1)
        print(f"{classes[found['labels'][0, i]]:10} {found['scores'][0, i]:.3f}", *box)

# %% [markdown]
# The whole model's own answer, which works at its own size:

# %%
first = expected[0].above(0.5)
for name, score, box in zip(first.class_names, first.scores, first.boxes.round(1), strict=True):
    print(f"{name:10} {score:.3f}", *box)
rk.visualize.draw(photos[0], expected[0], zoom=2)

# %% [markdown]
# ## Go on
#
# `docs/guides/serving.md` has versions, warm-up and the names of TensorFlow's object detection API;
# `examples/detect_litert.py` is the last part as a program that needs numpy, Pillow and ai-edge-litert alone.
