# %% [markdown]
# # Evaluate and read errors
#
# How good is a detector, and what does it get wrong? One number says the first, and hardly ever what to do about it. This
# notebook goes from the number to the pictures.
#
# It runs as it is, on drawn scenes. For **your own pictures**, change the next cell.

# %% tags=["parameters"]
annotations = None  # <- your own COCO file, for instance "mine/val.json"; None draws scenes
detector = "shapes"  # a name of rk.models.list_presets(), or a .keras file such as "mine.keras"
min_score = 0.5  # what a user of the detector would see
drawn_images = 40

# %%
import matplotlib.pyplot as plt
from IPython.display import display
from PIL import Image

import rcnn_keras as rk

if annotations is None:
    rk.data.draw_shapes(drawn_images, size=(160, 160), seed=31, max_shapes=9, out="scenes")
    annotations = "scenes/annotations.json"
data = rk.data.load_coco(annotations)
model = rk.models.from_preset(detector)
found = {r.image_id: d for r, d in zip(data, model.detect(data), strict=True)}
print(data)

# %% [markdown]
# ## Average precision
#
# COCO's AP is a mean over classes and over ten IoU thresholds from 0.50 to 0.95; AP50 and AP75 are those of one
# threshold. A large gap between the two means boxes that are found and lie badly.

# %%
coco = rk.evaluation.CocoScores(data)
for image_id, detections in found.items():
    coco.add(image_id, detections)
for name, value in coco.summary().items():
    print(f"{name:14} {value:.3f}")

# %%
for name, (recall, precision) in coco.precision_recall(iou=0.5).items():
    plt.plot(recall, precision, label=name)
plt.gcf().set_size_inches(5, 3)
plt.gca().set(xlabel="recall", ylabel="precision", title="at IoU 0.50", xlim=(0, 1), ylim=(0, 1.02))
plt.legend()
plt.show()

# %% [markdown]
# ## Kinds of errors
#
# Each detection above `min_score` is of the first kind that holds: true positive, duplicate, badly placed
# (localisation), wrong class, both at once, or on the background. An object that no detection found is missed.

# %%
errors = rk.evaluation.DetectionErrors(data, found, min_score=min_score)
for name, row in errors.table().items():
    print(f"{name:10}", ", ".join(f"{count} {kind}" for kind, count in row.items() if count))
errors.plot("errors.png")
Image.open("errors.png")

# %% [markdown]
# What each kind asks for, most often:
#
# | kind | what helps |
# | --- | --- |
# | missed | smaller anchors, a larger image, more pictures of such objects; a lower `min_score` |
# | background | pictures without objects in training; labels that were forgotten are found here, too |
# | localisation | labels that are drawn tightly and alike, more epochs |
# | wrong class | more pictures of both classes; is the difference visible at this size? |
# | duplicate | a lower `box_nms_thresh` |
#
# ## Which class for which
#
# Rows are objects, columns are detections, the last of both is the background: what was missed, and what is not there.

# %%
confusion = rk.evaluation.ConfusionMatrix(data, found)
confusion.plot("confusion.png")
Image.open("confusion.png")

# %% [markdown]
# ## The worst cases
#
# Numbers count, pictures explain: the ground truth on the left, the detections on the right.

# %%
records = {record.image_id: record for record in data}
for kind in ("missed", "background", "localisation", "wrong class"):
    for case in errors.worst(kind, 1):
        record = records[case.image_id]
        details = f", score {case.score:.2f}, IoU {case.overlap:.2f}" if case.detection >= 0 else ""
        print(f"{kind}: {data.classes[case.label]}{details}")
        truth = rk.visualize.draw(record.image, record, classes=data.classes, zoom=2)
        seen = rk.visualize.draw(record.image, found[case.image_id], min_score=min_score, zoom=2)
        display(rk.visualize.grid([truth, seen]))

# %% [markdown]
# ## Which threshold
#
# The score from which detections are shown is a choice between missing objects and showing what is not there.

# %%
for threshold in (0.2, 0.35, 0.5, 0.65, 0.8, 0.9):
    at = rk.evaluation.DetectionErrors(data, found, min_score=threshold)
    right = int((at.kinds == 0).sum())
    precision, recall = right / max(len(at.kinds), 1), right / max(right + len(at.missed), 1)
    print(f"score {threshold:.2f}: precision {precision:.3f}, recall {recall:.3f}")

# %% [markdown]
# ## Go on
#
# - `rcnn evaluate MODEL --data val.json --out scored` writes all of this as a page, for masks too.
# - `inside_a_detector.ipynb` looks into one of the images that went wrong.
# - `docs/guides/evaluation.md` has the protocols of Pascal VOC as well.
