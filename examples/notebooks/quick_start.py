# %% [markdown]
# # Quick start
#
# Detect with a model that comes with the package, look at what it found, and keep it as a file. Nothing here needs a GPU
# or downloads weights; `pip install .` in a copy of the repository is all that came before.
#
# It runs as it is, on drawn scenes. For **your own pictures**, change the next cell.

# %% tags=["parameters"]
photos = None  # <- the path of your own folder of pictures; None draws scenes
detector = "shapes"  # or "blood_cells", "nuclei", "playing_cards", or the path of a .keras file

# %%
from pathlib import Path

import keras
import numpy as np

import rcnn_keras as rk

if photos is None:
    rk.data.draw_shapes(6, size=(160, 160), seed=11, out="scenes")
    photos = "scenes"
model = rk.models.from_preset(detector)
print(type(model).__name__, f"with {model.count_params():,} parameters, finds", *model.classes)

# %% [markdown]
# ## Detect
#
# `detect` takes paths, folders, arrays, tensors, Pillow images, and lists of those, and returns one `rk.Detections` for
# each image, the best score first. Boxes are `x1 y1 x2 y2` in the pixels of the image that was given, masks lie in the
# frames of their boxes.

# %%
endings = (".jpg", ".jpeg", ".png")
paths = sorted(path for path in Path(photos).iterdir() if path.suffix.lower() in endings)
detections = model.detect(paths)
for path, found in zip(paths, detections, strict=True):
    print(f"{path.name}: {found.above(0.5).summary()}")

# %%
first = detections[0]
for name, score, box in zip(first.class_names, first.scores, first.boxes.round(1), strict=True):
    print(f"{name:10} {score:.3f}", *box)

# %% [markdown]
# ## Look
#
# `draw` leaves out what scores below `min_score`, 0.5 by default; `grid` tiles pictures.

# %%
pictures = [
    rk.visualize.draw(path, found, zoom=2) for path, found in zip(paths, detections, strict=True)
]
rk.visualize.grid(pictures[:6], columns=3)

# %% [markdown]
# ## Keep
#
# A detector is a Keras model. What `save` writes is an ordinary `.keras` file: `load_model` needs no `custom_objects`,
# and the loaded model detects the same, to the last bit.

# %%
model.save("detector.keras")
again = keras.models.load_model("detector.keras")
print("the same boxes:", np.array_equal(again.detect(paths[0])[0].boxes, first.boxes))

# %% [markdown]
# ## Go on
#
# - `fine_tune.ipynb`: the same for objects of your own.
# - `inside_a_detector.ipynb`: why it finds this and not that.
# - `evaluate.ipynb`: how good it is, and what it gets wrong.
# - `serve.ipynb`: TensorFlow Serving and phones.
