# %% [markdown]
# # Fine-tune on your folder
#
# A trained detector learns the objects of your own pictures from a few dozen of them: its weights are kept but for the
# layers that depend on the classes, its first stages are frozen, and it trains at a low rate for a few epochs.
#
# It runs as it is, on drawn scenes. For **your own pictures**, change the next cell. The folder has `train.json` and
# `val.json`, COCO files as Label Studio, CVAT, Roboflow and others write them, and the pictures beside them or in
# `images/`. Pascal VOC is read by `rk.data.load_voc(folder, "train")`.

# %% tags=["parameters"]
folder = None  # <- the path of your own folder; None draws scenes
detector = "shapes"  # to start from: a name of rk.models.list_presets(), or a .keras file
batch_size, epochs = 4, 8
drawn_images = 40  # to train on, where scenes are drawn

# %% [markdown]
# The drawn scenes have two classes that the detector does not know, round and angular things.

# %%
from dataclasses import replace

import keras
import matplotlib.pyplot as plt
import numpy as np

import rcnn_keras as rk

keras.utils.set_random_seed(1)


def draw_scenes(part, count, seed):
    drawn = rk.data.draw_shapes(count, size=(128, 128), seed=seed, out=f"drawn/{part}")
    records = [replace(record, labels=np.minimum(record.labels, 1)) for record in drawn]
    rk.data.DetectionDataset(records, ["round", "angular"]).save_coco(f"drawn/{part}.json")


if folder is None:
    folder = "drawn"
    draw_scenes("train", drawn_images, seed=21)
    draw_scenes("val", drawn_images // 2, seed=22)

# %% [markdown]
# ## The data
#
# A file is checked as a whole before anything is done with it. What cannot be used is refused with file, id and value;
# what was repaired or is suspicious is listed in `problems`. Look at the boxes before you train: most training that does
# not work has wrong boxes.

# %%
train = rk.data.load_coco(f"{folder}/train.json")
val = rk.data.load_coco(f"{folder}/val.json")
print(train)
print(val)
print(len(train.problems), "problems in the files")

# %%
truth = [rk.visualize.draw(r.image, r, classes=train.classes, zoom=2) for r in train[:4]]
rk.visualize.grid(truth)

# %% [markdown]
# ## Train
#
# `frozen_stages=2` keeps the first half of a ResNet as it is, which suits a few hundred pictures.
# `CocoEvaluation` puts average precision on the validation pictures into the history.

# %%
model = rk.models.from_preset(detector, classes=train.classes, frozen_stages=2)
steps = epochs * -(-len(train) // batch_size)
rate = keras.optimizers.schedules.CosineDecay(3e-4, steps)
model.compile(keras.optimizers.AdamW(rate, weight_decay=0.01))
history = model.fit(
    train.batches(batch_size, shuffle=True, augment=rk.data.RandomFlip()),
    epochs=epochs,
    callbacks=[rk.callbacks.CocoEvaluation(val)],
    verbose=0,
).history

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
left.plot(range(1, epochs + 1), history["loss"], marker="o")
left.set(xlabel="epoch", title="training loss")
for name in ("val_AP", "val_AP50"):
    right.plot(range(1, epochs + 1), history[name], marker="o", label=name)
right.set(xlabel="epoch", title="average precision", ylim=(0, 1))
right.legend()
plt.show()

# %% [markdown]
# ## See
#
# Pictures that it was not trained on, the ground truth above and the detections below.

# %%
shown = val[:4]
found = [
    rk.visualize.draw(r.image, d, zoom=2) for r, d in zip(shown, model.detect(shown), strict=True)
]
truth = [rk.visualize.draw(r.image, r, classes=val.classes, zoom=2) for r in shown]
rk.visualize.grid([*truth, *found], columns=len(shown))

# %%
model.save("mine.keras")
print(f"AP {history['val_AP'][-1]:.3f}, AP50 {history['val_AP50'][-1]:.3f}: mine.keras")

# %% [markdown]
# ## Go on
#
# - More epochs and more pictures help first. `ScaleJitter`, `ColorJitter` and the other augmentations of `rk.data` come
#   next, then `frozen_stages=0` with a rate of 1e-4.
# - Where no detector knows things like yours, start from ImageNet weights: `docs/guides/small_data.md`. `rcnn init
#   train.json --out config.yaml` writes a configuration that fits your data, each value with its reason.
# - For long trainings use `rcnn train`: stopped at any moment, it goes on where it stopped.
# - `evaluate.ipynb` shows what the detector gets wrong; the path of `mine.keras` goes into its first cell.
