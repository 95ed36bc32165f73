# %% [markdown]
# # Inside a detector
#
# What does a detector see, and why does it find this and not that? `rk.visualize.explain` detects in one image and keeps
# all that was computed on the way: as arrays, as pictures, and as one page.
#
# It runs as it is, on a drawn scene. For **your own picture**, change the next cell.

# %% tags=["parameters"]
photo = None  # <- the path of your own picture; None draws a scene
detector = "shapes"  # a name of rk.models.list_presets(), or the path of a .keras file

# %%
from IPython.display import display

import rcnn_keras as rk

if photo is None:
    # A record has ground truth, too, so that the training can be explained as well.
    photo = rk.data.draw_shapes(5, size=(128, 128), seed=4, out="scenes")[3]
model = rk.models.from_preset(detector)
inside = rk.visualize.explain(model, photo)
print(inside.why_empty or inside.detections.above(0.5).summary())

# %% [markdown]
# ## What the network reads
#
# The image is resized to the size that the model works at, and padded so that all feature maps fit.

# %%
inside.draw_input()

# %% [markdown]
# ## Feature maps
#
# The finest level first. Left the mean of the channels' magnitudes, then the channels that vary most.

# %%
for level, features in enumerate(inside.features[:2]):
    print(f"level {level}: {features.values.shape}, {features.stride} pixels a position")
    display(inside.draw_features(level, channels=4))

# %% [markdown]
# ## Anchors and objectness
#
# At each position of each level lie a few anchors. The RPN gives each of them a probability of being an object, whatever
# its class.

# %%
level = min(1, len(inside.anchors) - 1)
print([len(anchors) for anchors in inside.anchors], "anchors by level")
display(inside.draw_anchors(level))
inside.draw_objectness(level)

# %% [markdown]
# ## Proposals
#
# Anchors moved by the RPN's deltas: the best before non-maximum suppression, and after it.

# %%
display(inside.draw_proposals(40, before_nms=True))
inside.draw_proposals(15)

# %% [markdown]
# ## From an anchor to a detection
#
# The way of one detection: the anchor, the proposal that became of it, the final box; where the features of its RoI were
# read, level and samples; and the boxes that suppression removed because of it.

# %%
best = 0  # detections are sorted, the best one first
path = inside.paths[best]
print(f"{inside.classes[path.label]} {path.score:.3f}, objectness {path.objectness:.3f}")
print("anchor  ", path.anchor.round(1))
print("proposal", path.proposal.round(1))
print("box     ", path.box.round(1))
inside.draw_path(best)

# %%
roi = inside.rois[best]
print(f"{roi.kind} on level {roi.level}, pooled to {roi.pooled.shape}")
inside.draw_roi(best)

# %%
inside.draw_suppressed(best)

# %% [markdown]
# ## Classes and masks
#
# The class probabilities of the proposals that are most sure of a class, and the mask of the best detection as the
# network gives it and pasted into the image.

# %%
inside.draw_probabilities()

# %%
if inside.masks is not None:
    display(inside.draw_mask(best))

# %% [markdown]
# ## What a training step would take from it
#
# With ground truth: the anchors that are positive for each object, the sampled RoIs with the loss of each, and the losses
# that `evaluate` gives for this image.

# %%
if inside.training is not None:
    for name, loss in inside.training.losses.items():
        print(f"{name:20} {loss:.4f}")
    display(inside.draw_matches(), inside.draw_samples())

# %% [markdown]
# ## All of it as one page
#
# One file that needs no network, for a phone as for a large screen, and used by keyboard.

# %%
inside.save("inside.html")

# %% [markdown]
# The guide is `docs/guides/inside-a-detector.md`; `docs/review/` explains each of these parts, with the papers' equations.
