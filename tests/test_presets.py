"""Presets: the table, downloads from a server on this machine, other classes on kept weights, and
detectors that were saved."""

import functools
import hashlib
import http.server
import threading

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import save_file

from rcnn_keras import presets
from rcnn_keras.cli import main
from rcnn_keras.convert import torchvision
from rcnn_keras.models import FasterRCNN, MaskRCNN
from rcnn_keras.preset_table import saved_models
from rcnn_keras.presets import PRESETS, Preset, fetch, from_preset, list_presets

SMALL = {"backbone": "resnet18_fpn", "fpn_channels": 8, "box_units": 8, "min_size": 64}
NETWORK = "fasterrcnn_resnet50_fpn"


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        """Keep the tests' output clean."""


@pytest.fixture
def server(tmp_path):
    """A server of the folder `tmp_path / "server"`, with the paths it was asked for."""
    (tmp_path / "server").mkdir()
    handler = functools.partial(Handler, directory=tmp_path / "server")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.asked = []
        server.folder = tmp_path / "server"
        server.url = f"http://127.0.0.1:{server.server_port}/"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def publish(server, monkeypatch, tmp_path):
    """A function that serves the weights of a small model as the preset "small_coco"."""

    def add(build=MaskRCNN, **content):
        monkeypatch.setitem(torchvision.DETECTORS, NETWORK, (build, SMALL))
        model = build(classes=["1", "2", "3"], norm="frozen_batch", **SMALL)
        rng = np.random.default_rng(0)
        state = {
            name: rng.uniform(0.1, 1, target.shape).astype("f4")
            for name, target in torchvision.detector_targets(model).items()
        }
        return served(state, "small_coco", NETWORK, 3)

    def served(state, name, network, classes):
        file = tmp_path / "weights.safetensors"
        save_file(state, file)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
        file.rename(server.folder / f"small-{digest}.safetensors")
        preset = Preset(name, network, f"{server.url}small-{digest}.safetensors", 45, classes)
        monkeypatch.setitem(PRESETS, name, preset)
        return state

    add.backbone = lambda state: served(state, "small_imagenet", "resnet18", 0)
    monkeypatch.setenv("RCNN_KERAS_CACHE", str(tmp_path / "cache"))
    return add


def files_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_table_of_presets_is_consistent():
    assert len(PRESETS) == 49
    assert list_presets() == [*saved_models().values(), *PRESETS.values()]
    for preset in PRESETS.values():
        if preset.project != "torchvision":
            continue
        assert preset.url.startswith("https://download.pytorch.org/models/")
        assert preset.url.endswith(f"-{preset.digest}.pth")
        assert len(preset.digest) == 8
        assert int(preset.digest, 16) > 0
        assert preset.licence == "BSD-3-Clause"
        assert (preset.box_ap is None) != (preset.top1 is None)
        assert (preset.mask_ap is not None) == preset.name.startswith("maskrcnn")
        assert (preset.keypoint_ap is not None) == preset.name.startswith("keypointrcnn")
    mask = PRESETS["maskrcnn_resnet50_fpn_coco"]
    assert mask.file_name == "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth"
    assert (mask.box_ap, mask.mask_ap, mask.num_classes) == (37.9, 34.6, 90)
    keypoints = PRESETS["keypointrcnn_resnet50_fpn_coco"]
    assert keypoints.file_name == "keypointrcnn_resnet50_fpn_coco-fc266e95.pth"
    assert (keypoints.box_ap, keypoints.keypoint_ap, keypoints.num_classes) == (54.6, 65.0, 1)


def test_the_command_lists_all_presets():
    lines = CliRunner().invoke(main, ["presets"]).output.splitlines()
    assert len(lines) == 50 + len(saved_models())
    row = next(line for line in lines if line.startswith("maskrcnn_resnet50_fpn_v2_coco"))
    assert row.split()[1:] == ["177", "90", "47.4", "41.8", "-", "-", "BSD-3-Clause"]
    for model in saved_models().values():
        row = next(line for line in lines if line.startswith(model.name))
        assert row.split()[3] == f"{100 * model.content['scores']['AP']:.1f}"


def test_a_detector_is_fetched_once_and_converted_once(publish, server, tmp_path, logged):
    state = publish()
    model = from_preset("small_coco")
    assert isinstance(model, MaskRCNN)
    assert model.classes == ("class_0", "class_1", "class_2")
    assert model.get_config()["frozen_stages"] == 2
    bias = state["rpn.head.cls_logits.bias"]
    np.testing.assert_array_equal(model.rpn_head.objectness.bias, bias)
    printed = logged()
    assert f"Downloading {PRESETS['small_coco'].url}" in printed
    assert "Converting" in printed
    found = files_in(tmp_path / "cache")
    assert len(found) == 2
    assert found[0].startswith("small-")
    assert found[1].startswith("small_coco-")
    assert found[1].endswith(".keras")

    again = from_preset("small_coco")
    assert len(server.asked) == 1
    assert logged() == ""
    assert again.get_config() | {"name": ""} == model.get_config() | {"name": ""}
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)

    other = from_preset("small_coco", classes=["a", "b"], min_size=96)
    assert other.classes == ("a", "b")
    assert (other.min_size, other.get_config()["frozen_stages"]) == (96, 2)
    printed = logged()
    new = "box_head.class_logits, box_head.box_deltas, mask_head.mask_logits"
    assert printed.strip().endswith(f"new: {new}")
    same = {"backbone", "fpn", "rpn_head.convs", "rpn_head.objectness", "rpn_head.deltas"}
    same |= {"box_head.trunk", "mask_head.trunk", "mask_head.upsample"}
    kept = printed.partition("kept in ")[2].partition(";")[0]
    assert set(kept.split(", ")) == same
    for part in ("backbone", "fpn", "rpn_head"):
        pairs = zip(getattr(other, part).weights, getattr(model, part).weights, strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(other.mask_head.upsample.kernel, model.mask_head.upsample.kernel)
    assert other.mask_head.mask_logits.kernel.shape[-1] == 2


def test_other_classes_keep_all_weights_except_the_predictors(publish, logged):
    publish(FasterRCNN)
    model = from_preset("small_coco", num_classes=3, norm="batch")  # the names of the preset
    assert "new: nothing" in logged()
    old = from_preset("small_coco")
    for name in ("conv1", "bn1"):
        pairs = zip(
            *(
                sorted(m.backbone.get_layer(name).weights, key=lambda w: w.path)
                for m in (model, old)
            ),
            strict=True,
        )
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)
    # As many classes, but others.
    from_preset("small_coco", classes=["x", "y", "z"], aspect_ratios=(1.0, 2.0))
    new = "rpn_head.objectness, rpn_head.deltas, box_head.class_logits, box_head.box_deltas"
    assert f"new: {new}" in logged()


def test_conflicting_arguments_are_refused_before_any_download(publish, server):
    publish()
    with pytest.raises(ValueError, match="small_coco") as caught:
        from_preset("small_coco", box_units=4, norm=None, min_size=96)
    assert str(caught.value).splitlines() == [
        "small_coco: norm must be 'frozen_batch', as the weights have it; received None",
        "small_coco: box_units must be 8, as the weights have it; received 4",
    ]
    with pytest.raises(ValueError, match="backbone must be 'resnet101_fpn'"):
        from_preset("resnet101_imagenet", classes=["a"], backbone="resnet50_fpn")
    assert server.asked == []


def test_a_backbone_preset_gives_a_new_detector_on_it(publish, torchvision_state, logged):
    publish.backbone(torchvision_state)
    with pytest.raises(ValueError, match="classes or num_classes is needed"):
        from_preset("small_imagenet")
    model = from_preset("small_imagenet", num_classes=2, fpn_channels=8, box_units=8)
    config = model.get_config()
    assert (config["backbone"], config["norm"], config["frozen_stages"]) == (
        "resnet18_fpn",
        "frozen_batch",
        2,
    )
    kernel = torchvision_state["conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(model.backbone.get_layer("conv1").kernel, kernel)
    assert "backbone's weights are kept" in logged()
    masks = from_preset(
        "small_imagenet", classes=["a"], architecture=MaskRCNN, fpn_channels=8, box_units=8
    )
    assert isinstance(masks, MaskRCNN)
    np.testing.assert_array_equal(masks.backbone.get_layer("conv1").kernel, kernel)


@pytest.fixture
def torchvision_state():
    """Weights of a ResNet-18 by torchvision's names."""
    model = FasterRCNN("resnet18_fpn", ["a"], fpn_channels=8, box_units=8)
    found = torchvision._backbone_targets(model.backbone.layers)
    rng = np.random.default_rng(0)
    state = {name: rng.uniform(0.1, 1, target.shape).astype("f4") for name, target in found.items()}
    return state | {"fc.weight": np.ones((10, 512), "f4"), "fc.bias": np.ones(10, "f4")}


def test_without_a_network_the_error_says_where_to_put_the_file(monkeypatch, tmp_path):
    url = "http://127.0.0.1:9/small-01234567.pth"  # nobody answers there
    monkeypatch.setitem(PRESETS, "small_coco", Preset("small_coco", NETWORK, url, 1, 3))
    with pytest.raises(OSError, match="could not be fetched") as caught:
        from_preset("small_coco", cache=tmp_path)
    assert f"fetch {url} and put it at {tmp_path / 'small-01234567.pth'}" in str(caught.value)
    assert files_in(tmp_path) == []


def test_a_file_in_the_cache_is_not_downloaded(publish, server, tmp_path):
    publish()
    preset = PRESETS["small_coco"]
    (tmp_path / "mine").mkdir()
    (server.folder / preset.file_name).rename(tmp_path / "mine" / preset.file_name)
    assert fetch("small_coco", tmp_path / "mine") == tmp_path / "mine" / preset.file_name
    assert server.asked == []


def test_a_file_with_another_hash_is_refused(publish, server, tmp_path):
    publish()
    preset = PRESETS["small_coco"]
    with open(server.folder / preset.file_name, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00\x01")
    message = f"SHA-256 begins with .*not with {preset.digest}"
    with pytest.raises(ValueError, match=message):
        fetch("small_coco")
    assert files_in(tmp_path / "cache") == []
    path = tmp_path / "cache" / preset.file_name
    path.write_bytes(b"half of it")
    with pytest.raises(ValueError, match=message) as caught:
        fetch("small_coco")
    assert str(caught.value).startswith(str(path))


def test_a_file_missing_on_the_server_is_reported(server, monkeypatch, tmp_path):
    url = f"{server.url}small-01234567.pth"
    monkeypatch.setitem(PRESETS, "small_coco", Preset("small_coco", NETWORK, url, 1, 3))
    with pytest.raises(OSError, match="404"):
        fetch("small_coco", tmp_path / "cache")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "zebra"}, "no preset is named 'zebra'. There are .*the paths of .keras files"),
        ({"name": "maskrcnn_resnet50_coco"}, "did you mean 'maskrcnn_resnet50_fpn_coco'"),
        ({"name": "resnet18_imagenet", "num_classes": 0}, "num_classes .* received 0"),
        (
            {"name": "resnet18_imagenet", "num_classes": 2, "classes": ["a"]},
            "classes, 1; received 2",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        from_preset(cache=tmp_path, **arguments)


def test_the_cache_is_that_of_the_environment_or_the_home_folder(monkeypatch):
    monkeypatch.delenv("RCNN_KERAS_CACHE", raising=False)
    assert presets._folder(None).parts[-2:] == (".cache", "rcnn_keras")
    assert presets._folder(None).is_absolute()


# detectors that were saved


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A Faster R-CNN and the file that it was saved to."""
    path = tmp_path_factory.mktemp("saved") / "best.keras"
    model = FasterRCNN(classes=["circle", "star"], seed=3, frozen_stages=1, **SMALL)
    model.rpn_head.objectness.bias.assign([1.0, 2.0, 3.0])
    model.save(path)
    return model, path


def test_a_keras_file_gives_its_detector(saved, logged):
    model, path = saved
    again = from_preset(path)
    assert again.get_config() == model.get_config()
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert logged() == ""

    with pytest.raises(ValueError, match="classes must be a list of different names"):
        from_preset(path, classes=[])
    other = from_preset(str(path), classes=["cell"], frozen_stages=3, min_size=80)
    config = other.get_config()
    assert (other.classes, config["frozen_stages"], config["min_size"]) == (("cell",), 3, 80)
    assert other.box_head.class_logits.bias.shape == (2,)
    for part in ("backbone", "fpn", "rpn_head"):
        theirs = {w.path: w for w in getattr(model, part).weights}
        for ours in getattr(other, part).weights:
            np.testing.assert_array_equal(ours, theirs[ours.path])
    new = "new: box_head.class_logits, box_head.box_deltas"
    assert logged().startswith(f"{path}: weights kept in backbone, fpn, ")
    assert from_preset(path, frozen_stages=0).classes == model.classes
    assert new not in logged()


def test_a_keras_file_of_a_faster_rcnn_gives_a_mask_rcnn(saved, logged):
    model, path = saved
    masks = from_preset(path, architecture=MaskRCNN)
    assert masks.classes == model.classes
    np.testing.assert_array_equal(masks.rpn_head.objectness.bias, [1, 2, 3])
    logits = masks.box_head.class_logits.kernel
    np.testing.assert_array_equal(logits, model.box_head.class_logits.kernel)
    new = "mask_head.trunk, mask_head.upsample, mask_head.mask_logits"
    assert logged().strip().endswith(f"; new: {new}")


def test_imagenet_weights_in_a_keras_file_are_not_downloaded_again(saved, tmp_path):
    model, _ = saved
    FasterRCNN.from_config(model.get_config() | {"backbone_weights": "imagenet"}).save(
        tmp_path / "best.keras"
    )
    other = from_preset(tmp_path / "best.keras", classes=["cell"])
    assert other.get_config()["backbone_weights"] == "imagenet"


def test_files_without_a_detector_are_refused(saved, tmp_path):
    _, path = saved
    with pytest.raises(FileNotFoundError, match=r"bets\.keras: no such file; did you mean .*best"):
        from_preset(path.with_name("bets.keras"))
    with pytest.raises(FileNotFoundError, match=r"a\.keras: no such file$"):
        from_preset(tmp_path / "a.keras")
    (tmp_path / "text.keras").write_text("not a zip")
    with pytest.raises(ValueError, match=r"text\.keras is not a \.keras file"):
        from_preset(tmp_path / "text.keras")
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Dense(1)(inputs)).save(tmp_path / "dense.keras")
    with pytest.raises(ValueError, match="holds a Functional, not a detector"):
        from_preset(tmp_path / "dense.keras", classes=["a"])


def test_preset_arguments_are_those_of_the_models():
    v2 = presets.preset_arguments("maskrcnn_resnet50_fpn_v2_coco")
    assert (v2["backbone"], v2["norm"], v2["box_convs"]) == ("resnet50_fpn", "batch", 4)
    assert (v2["min_size"], v2["anchor_sizes"]) == (800, None)
    backbone = presets.preset_arguments("resnet18_imagenet")
    assert (backbone["backbone"], backbone["norm"]) == ("resnet18_fpn", "frozen_batch")
    assert not {"classes", "seed", "name"} & (set(v2) | set(backbone))
    assert presets.preset_conflicts("resnet18_imagenet", {"backbone": "resnet18"}) == {}
    assert presets.preset_conflicts("resnet18_imagenet", {"box_units": 8}) == {}
    assert set(presets.preset_conflicts("resnet18_imagenet", {"stride_in_1x1": True})) == {
        "stride_in_1x1"
    }
