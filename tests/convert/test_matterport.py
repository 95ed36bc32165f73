"""Files of matterport/Mask_RCNN: what is read, what is written, and what is refused."""

import h5py
import keras
import numpy as np
import pytest

from rcnn_keras.convert import matterport
from rcnn_keras.models import MatterportMaskRCNN

SMALL = {
    "rpn_pre_nms_top_n": 200,
    "rpn_post_nms_top_n_test": 30,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 10,
}
CONFIG = {"IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 128}


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(2)
    model = MatterportMaskRCNN(
        "resnet50_fpn",
        ("disc", "star"),
        min_dim=64,
        max_dim=128,
        backbone_width=1 / 16,
        fpn_channels=16,
        rpn_channels=24,
        box_units=32,
        **SMALL,
    )
    rng = np.random.default_rng(0)
    for variable in model.weights:  # norms that do something, in the box deltas too
        if variable.name in ("gamma", "moving_variance"):
            values = variable.numpy() * rng.uniform(0.8, 1.2, variable.shape)
        else:
            values = variable.numpy() + rng.normal(0, 0.02, variable.shape)
        variable.assign(values)
    return model


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return matterport.save(model, tmp_path_factory.mktemp("weights") / "mask_rcnn_shapes.h5")


@pytest.fixture(scope="module")
def other(model):
    """A model of the same shapes."""
    return MatterportMaskRCNN.from_config(model.get_config())


@pytest.fixture
def changed(file, tmp_path):
    """Return the function that copies the file and changes the copy."""

    def change(function, name="changed.h5"):
        path = tmp_path / name
        path.write_bytes(file.read_bytes())
        with h5py.File(path, "r+") as opened:
            function(opened)
        return path

    return change


def test_a_file_that_was_written_is_read_as_the_same_model(model, file):
    loaded = matterport.load(file, ["BG", "disc", "star"], CONFIG, **SMALL)
    assert loaded.get_config()["backbone_width"] == 1 / 16
    assert loaded.classes == ("disc", "star")
    for ours, theirs in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7, err_msg=ours.path)


def names_of(group):
    names = group.attrs["weight_names"]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def test_the_layout_is_matterports(file):
    with h5py.File(file) as opened:
        assert names_of(opened["conv1"])[0] == "conv1/kernel:0"
        names = names_of(opened["rpn_model"])
        assert names[0] == "rpn_conv_shared/kernel:0"
        assert [n.split("/")[0] for n in names[::2]] == list(matterport.RPN_LAYERS)
        assert opened["mrcnn_class_conv1/mrcnn_class_conv1/kernel:0"].shape == (7, 7, 16, 32)
        assert opened["mrcnn_bbox_fc/mrcnn_bbox_fc/kernel:0"].shape == (32, 3 * 4)
        assert opened["res4f_branch2c/res4f_branch2c/kernel:0"].shape == (1, 1, 16, 64)
        assert names_of(opened["mrcnn_mask_bn1"]) == [
            f"mrcnn_mask_bn1/{kind}:0"
            for kind in ("gamma", "beta", "moving_mean", "moving_variance")
        ]


def test_files_of_whole_models_second_builds_and_forks_are_read(
    model, other, changed, tmp_path, file
):
    def second(opened):
        group = opened["conv1"]
        for kind in ("kernel", "bias"):
            group[f"conv1_1/{kind}:0"] = group[f"conv1/{kind}:0"][()]
        group.attrs["weight_names"] = [b"conv1_1/kernel:0", b"conv1_1/bias:0"]
        opened["rpn_model"].move("rpn_class_raw", "rpn_class_raw_2")
        opened["rpn_model"].attrs["weight_names"] = [
            name.replace("rpn_class_raw", "rpn_class_raw_2").encode()
            for name in names_of(opened["rpn_model"])
        ]
        anchors = opened.create_group("anchors")
        anchors.attrs["weight_names"] = [b"anchors/Variable:0"]
        anchors["anchors/Variable:0"] = np.zeros((1, 5, 4), np.float32)
        opened.create_group("input_image").attrs["weight_names"] = np.zeros(0, "S1")

    whole = tmp_path / "whole.h5"
    with h5py.File(file) as source, h5py.File(whole, "w") as target:
        group = target.create_group("model_weights")
        for name in source:
            source.copy(name, group)
        target.create_group("optimizer_weights")
    for path in (changed(second), whole):
        for variable in other.weights:
            variable.assign(variable * 0)
        matterport.load_into(other, path)
        for ours, theirs in zip(other.weights, model.weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7, err_msg=ours.path)


def without(name):
    def change(opened):
        del opened[name]

    return change


def in_place(group, kind, values):
    def change(opened):
        del opened[group][f"{group}/{kind}:0"]
        opened[group][f"{group}/{kind}:0"] = values

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("res3b_branch2a"), "missing: res3b_branch2a/kernel, res3b_branch2a/bias"),
        (without("bn_conv1"), "missing: bn_conv1/moving_mean"),
        (
            in_place("fpn_p2", "bias", np.zeros(3, "f4")),
            r"fpn_p2/bias \(3,\), not \(16,\)",
        ),
        (
            in_place("fpn_p2", "bias", np.full(16, np.nan, "f4")),
            "not of finite floating-point numbers: fpn_p2/bias",
        ),
        (lambda f: f.move("fpn_p3", "fpn_p33"), "missing: fpn_p3/kernel"),
        (lambda f: f["fpn_p3/fpn_p3"].__delitem__("bias:0"), "fpn_p3 lists the tensor"),
        (lambda f: f.copy("fpn_p3", "spare"), "not in the model: spare/kernel"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(change, message, changed, other):
    path = changed(change)
    other.fpn.lateral[0].kernel.assign(other.fpn.lateral[0].kernel * 0)
    with pytest.raises(ValueError, match=message):
        matterport.load_into(other, path)
    assert not np.any(other.fpn.lateral[0].kernel)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("res4f_branch2a"), "5 blocks in the layers res4a"),
        (without("mrcnn_class_logits"), "not a Mask R-CNN of matterport"),
        (without("fpn_c5p5"), "the tensor fpn_c5p5/kernel is missing"),
    ],
)
def test_what_says_which_network_it_is_must_be_there(change, message, changed):
    with pytest.raises(ValueError, match=message):
        matterport.load(changed(change))


def test_other_files_are_named(tmp_path, file):
    path = tmp_path / "x.h5"
    with pytest.raises(FileNotFoundError, match=r"x.h5: no such file"):
        matterport.load(path)
    path.write_bytes(b"no HDF5")
    with pytest.raises(ValueError, match="not an HDF5 file"):
        matterport.load(path)
    path.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"x\.h5: not an HDF5 file, or cut off"):
        matterport.load(path)
    small = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    small.save_weights(tmp_path / "small.weights.h5")
    with pytest.raises(ValueError, match="weights of Keras 3"):
        matterport.load(tmp_path / "small.weights.h5")
    small.save(tmp_path / "small.h5")
    with pytest.raises(ValueError, match=r"not a Mask R-CNN of matterport, .*it has dense"):
        matterport.load(tmp_path / "small.h5")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"IMAGE_MIN_DIMS": 64}, "did you mean IMAGE_MIN_DIM"),
        ({"detection_min_confidence": 0.5}, "did you mean DETECTION_MIN_CONFIDENCE"),
        ({"NUM_CLASSES": 5}, "NUM_CLASSES is 5, but .* has 3 with the background"),
        ({"BACKBONE": "resnet101"}, "BACKBONE is 'resnet101'"),
        ({"IMAGE_RESIZE_MODE": "crop"}, "'crop' is for training alone"),
        ({"IMAGE_MAX_DIM": 1000}, "IMAGE_MAX_DIM: max_dim must be a multiple of 64"),
        ({"MASK_SHAPE": [56, 56]}, r"MASK_SHAPE must be \[28, 28\]"),
        ({"IMAGE_CHANNEL_COUNT": 4}, "IMAGE_CHANNEL_COUNT must be 3"),
        ({"BACKBONE_STRIDES": [4, 8]}, "BACKBONE_STRIDES must be"),
        ({"RPN_ANCHOR_RATIOS": "wide"}, "RPN_ANCHOR_RATIOS cannot be 'wide'"),
    ],
)
def test_settings_that_cannot_be_followed_are_named(config, message, file):
    with pytest.raises(ValueError, match=message):
        matterport.load(file, config=config)


def test_classes_of_another_number_are_named_and_the_background_is_left_out(file):
    with pytest.raises(ValueError, match="classes must be 2 names without the background"):
        matterport.load(file, ["a", "b", "c"])
    with pytest.raises(TypeError, match="config must be a mapping or a Config"):
        matterport.load(file, config="IMAGE_MIN_DIM")


def test_a_config_class_its_instance_and_a_mapping_say_the_same(file):
    class Config:
        NAME = "shapes"
        IMAGE_MIN_DIM = 64
        IMAGE_MAX_DIM = 128
        DETECTION_MIN_CONFIDENCE = 0.25
        BBOX_STD_DEV = np.array([0.1, 0.2, 0.3, 0.4])
        RPN_ANCHOR_SCALES = (8, 16, 32, 64, 128)
        TRAIN_BN = None
        LEARNING_RATE = 0.1

    from rcnn_keras.convert.matterport_config import arguments_of

    as_mapping = {k: v for k, v in vars(Config).items() if k.isupper()}
    of_class, of_instance, of_mapping = (
        arguments_of(config, {}, "") for config in (Config, Config(), as_mapping)
    )
    assert of_class == of_instance == of_mapping
    assert of_class["box_score_thresh"] == 0.25
    assert of_class["anchor_sizes"][0] == (8,)
    assert of_class["norm"] == "batch"
    np.testing.assert_allclose(of_class["bbox_reg_weights"], (5, 10, 2.5, 10 / 3))


def test_by_name_loads_what_is_shared_and_says_when_nothing_is(model, file, tmp_path):
    three = MatterportMaskRCNN.from_config(model.get_config() | {"classes": ("a", "b", "c")})
    head = three.box_head.class_logits.kernel.numpy()
    with pytest.raises(ValueError, match=r"mrcnn_class_logits/kernel.*\n.*exclude="):
        matterport.load_into(three, file, by_name=True)
    left = matterport.load_into(
        three,
        file,
        by_name=True,
        exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"],
    )
    assert left == ["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask"]
    np.testing.assert_array_equal(three.box_head.class_logits.kernel, head)
    np.testing.assert_allclose(three.fpn.lateral[0].kernel, model.fpn.lateral[0].kernel)
    with pytest.raises(ValueError, match=r"exclude: neither the model nor .* mrcnn_logits"):
        matterport.load_into(three, file, by_name=True, exclude=["mrcnn_logits"])
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")]).save(tmp_path / "n.h5")
    with pytest.raises(ValueError, match=r"by_name finds no layer .*the file's layers are fc"):
        matterport.load_into(three, tmp_path / "n.h5", by_name=True)


def test_layers_of_another_network_are_loaded_by_name_as_keras_1_wrote_them(other, tmp_path):
    kernel = np.random.default_rng(5).normal(size=(7, 7, 3, 4)).astype("f4")
    with h5py.File(tmp_path / "resnet50.h5", "w") as file:
        file.attrs["layer_names"] = np.array(["conv1", "fc1000"], "S")
        for layer, kinds in (("conv1", {"conv1_W_1:0": kernel, "conv1_b_1:0": kernel[0, 0, 0]}),):
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([*kinds], "S")
            for name, values in kinds.items():
                group[name] = values
    mean = other.backbone.get_layer("bn1").moving_mean.numpy()
    left = matterport.load_into(other, tmp_path / "resnet50.h5", by_name=True)
    assert "conv1" not in left
    assert "bn_conv1" in left
    conv, norm = other.backbone.get_layer("conv1"), other.backbone.get_layer("bn1")
    np.testing.assert_array_equal(conv.kernel, kernel)
    np.testing.assert_allclose(norm.moving_mean, mean - kernel[0, 0, 0], atol=1e-6)


def test_weights_of_keras_and_of_matterport_by_the_ending(model, other, tmp_path):
    model.save_weights(tmp_path / "ours.weights.h5")
    model.save_weights(tmp_path / "theirs.h5")
    copy = other
    copy.load_weights(tmp_path / "theirs.h5")
    np.testing.assert_allclose(copy.weights[0], model.weights[0], rtol=1e-6)
    copy.load_weights(tmp_path / "ours.weights.h5")
    np.testing.assert_array_equal(copy.weights[0], model.weights[0])
