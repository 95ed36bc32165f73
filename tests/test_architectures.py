"""Starting from the weights of every architecture, in Python and in a configuration."""

import numpy as np
import pytest
import yaml

from rcnn_keras import presets
from rcnn_keras.models import (
    RCNN,
    CascadeRCNN,
    Detector,
    FasterRCNN,
    FastRCNN,
    KeypointRCNN,
    MaskRCNN,
)
from rcnn_keras.presets import from_preset
from rcnn_keras.runs.configuration import ARCHITECTURES, load_configuration
from rcnn_keras.runs.document import ConfigurationError

PYRAMID = {"backbone": "resnet18_fpn", "backbone_width": 0.25, "fpn_channels": 8, "box_units": 8}
PYRAMID |= {"min_size": 64, "max_size": 64}
CROPS = {"crop_size": 67, "context": 4, "channels": (4, 6, 6, 6, 6), "units": 8}
SMALL = {
    RCNN: {"backbone": "alexnet", **CROPS},
    FastRCNN: {**PYRAMID, "roi_pooling": "align"},
    FasterRCNN: PYRAMID,
    MaskRCNN: PYRAMID,
    CascadeRCNN: PYRAMID,
    KeypointRCNN: {**PYRAMID, "keypoint_layers": (8,)},
}
NAMES = {kind: name for name, kind in ARCHITECTURES.items()}
PYRAMIDS = (FasterRCNN, MaskRCNN, KeypointRCNN)
RELATED = {(a, b) for a in PYRAMIDS for b in PYRAMIDS}
RELATED |= {(RCNN, RCNN), (FastRCNN, FastRCNN)}
# Of a cascade some pairs stand for all: it is a Faster R-CNN with other heads.
PAIRS = [(kind, source) for kind in SMALL for source in SMALL if CascadeRCNN not in (kind, source)]
OF_CASCADE = [(CascadeRCNN, FasterRCNN), (FasterRCNN, CascadeRCNN)]
RELATED |= set(OF_CASCADE)
PAIRS += [*OF_CASCADE, (CascadeRCNN, FastRCNN), (RCNN, CascadeRCNN)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A saved detector of each architecture."""
    folder = tmp_path_factory.mktemp("saved")
    paths = {}
    for kind, arguments in SMALL.items():
        paths[kind] = folder / f"{NAMES[kind]}.keras"
        kind(classes=["a", "b"], **arguments).save(paths[kind])
    return paths


@pytest.mark.parametrize("kind", SMALL)
def test_a_saved_detector_of_every_architecture_is_a_preset(kind, files, logged):
    same = from_preset(files[kind])
    assert type(same) is kind
    assert type(kind.from_preset(files[kind])) is kind
    assert type(Detector.from_preset(files[kind])) is kind
    assert logged() == ""
    other = kind.from_preset(files[kind], classes=["x"])
    assert other.classes == ("x",)
    assert "class_logits" in logged().partition("new: ")[2]
    shared = "network" if kind is RCNN else "backbone"
    pairs = zip(getattr(other, shared).weights, getattr(same, shared).weights, strict=True)
    for ours, theirs in pairs:
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("kind", "source"), PAIRS)
def test_both_ways_agree_on_what_may_start_from_what(kind, source, files, tmp_path):
    document = {
        "model": {"architecture": NAMES[kind], "preset": str(files[source])},
        "data": {"format": "coco", "train": {}, "val": {}},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path)
    errors = [error for error in caught.value.errors if ": model" in error]
    if (kind, source) in RELATED:
        assert type(kind.from_preset(files[source])) is kind
        assert errors == []
        return
    with pytest.raises(
        ValueError, match=f"holds a {source.__name__}, from whose weights"
    ) as refused:
        kind.from_preset(files[source])
    assert f"{kind.__name__} cannot start; {source.__name__}" in str(refused.value).replace(
        "FasterRCNN or MaskRCNN or CascadeRCNN or KeypointRCNN", source.__name__
    )
    (error,) = errors
    assert error.startswith(f"{path}: model.preset = ")
    assert error.endswith(str(refused.value))


def test_a_backbone_is_not_for_the_network_of_rcnn():
    with pytest.raises(ValueError, match="resnet18_imagenet is a backbone, on which FastRCNN"):
        presets.check_architecture("resnet18_imagenet", RCNN)
    for kind in (FastRCNN, FasterRCNN, MaskRCNN, CascadeRCNN, KeypointRCNN):
        presets.check_architecture("resnet18_imagenet", kind)
    with pytest.raises(ValueError, match="maskrcnn_resnet50_fpn_coco holds a MaskRCNN"):
        FastRCNN.from_preset("maskrcnn_resnet50_fpn_coco")
    arguments = presets.preset_arguments("resnet18_imagenet", FastRCNN)
    assert (arguments["roi_pooling"], arguments["backbone"]) == ("pool", "resnet18_fpn")


def test_other_crops_do_not_fit_the_weights_of_rcnn(files):
    with pytest.raises(ValueError, match="units must be 8, as the weights have it; received 16"):
        RCNN.from_preset(files[RCNN], units=16)


def test_without_a_home_folder_another_is_asked_for(monkeypatch):
    monkeypatch.delenv("RCNN_KERAS_CACHE", raising=False)

    def nowhere(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.expanduser", nowhere)
    with pytest.raises(OSError, match=r"there is no home folder; name .*RCNN_KERAS_CACHE"):
        presets.fetch("resnet18_imagenet")


def test_a_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/cache: Not a directory; name a folder"):
        presets.fetch("resnet18_imagenet", tmp_path / "file" / "cache")
