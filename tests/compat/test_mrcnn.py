"""matterport's modules: programs as people wrote them for `mrcnn` run on this package."""

import warnings
from pathlib import Path

import h5py
import keras
import matplotlib
import numpy as np
import pytest

import rcnn_keras as rk
import rcnn_keras.compat.mrcnn.model as modellib
from rcnn_keras.compat.mrcnn import utils, visualize
from rcnn_keras.compat.mrcnn.config import Config
from rcnn_keras.compat.mrcnn.training import training_data

GOLDEN = Path(__file__).parents[1] / "models/matterport_golden.npz"
THIN = {"backbone_width": 1 / 16, "rpn_channels": 16}  # beyond the original's settings


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN))


class SquaresConfig(Config):
    NAME = "Squares"
    IMAGES_PER_GPU = 1
    BACKBONE = "resnet50"
    NUM_CLASSES = 1 + 2
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 24, 32, 48)
    TOP_DOWN_PYRAMID_SIZE = 16
    FPN_CLASSIF_FC_LAYERS_SIZE = 32
    TRAIN_ROIS_PER_IMAGE = 16
    PRE_NMS_LIMIT = 100
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 20
    DETECTION_MIN_CONFIDENCE = 0
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1


class SquaresDataset(utils.Dataset):
    def load(self, count):
        self.add_class("squares", 1, "dark")
        self.add_class("squares", 2, "bright")
        for i in range(count):
            self.add_image("squares", i, None, corner=(4 + 3 * i, 8), side=14, bright=i % 2)

    def load_image(self, image_id):
        info = self.image_info[image_id]
        image = np.full((48, 64, 3), 128, np.uint8)
        y, x = info["corner"]
        image[y : y + info["side"], x : x + info["side"]] = 255 * info["bright"]
        return image

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        mask = np.zeros((48, 64, 1), bool)
        y, x = info["corner"]
        mask[y : y + info["side"], x : x + info["side"], 0] = True
        return mask, np.array([1 + info["bright"]], np.int32)


@pytest.fixture
def dataset():
    dataset = SquaresDataset()
    dataset.load(4)
    dataset.prepare()
    return dataset


def test_datasets_number_classes_and_images_as_programs_expect(dataset):
    assert dataset.class_names == ["BG", "dark", "bright"]
    assert dataset.num_classes == 3
    assert list(dataset.image_ids) == [0, 1, 2, 3]
    assert dataset.map_source_class_id("squares.2") == 2
    assert dataset.get_source_class_id(2, "squares") == 2
    assert dataset.source_class_ids == {"": [0], "squares": [0, 1, 2]}
    assert dataset.image_reference(0) == ""
    dataset.add_class("squares", 2, "again")
    assert len(dataset.class_info) == 3
    with pytest.raises(ValueError, match="cannot have a dot"):
        dataset.add_class("a.b", 1, "x")


def test_a_config_computes_batch_and_shape():
    config = SquaresConfig()
    assert config.BATCH_SIZE == 1
    assert list(config.IMAGE_SHAPE) == [64, 64, 3]
    assert config.IMAGE_META_SIZE == 12 + 3
    assert config.to_dict()["NAME"] == "Squares"


def test_ground_truth_is_that_of_the_original(golden):
    height, width, _ = golden["train_image_hw_seed"]
    y, x = np.mgrid[:height, :width]
    masks = [
        ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
        for cy, cx, ry, rx in golden["train_ellipses_cy_cx_ry_rx"]
    ]

    class Ellipses(utils.Dataset):
        def load_image(self, image_id):
            return np.zeros((height, width, 3), np.uint8)

        def load_mask(self, image_id):
            return np.stack(masks, axis=-1), np.array([1, 1, 1])

    class ThisConfig(SquaresConfig):
        IMAGE_MIN_DIM = 400
        IMAGE_MAX_DIM = 512

    dataset = Ellipses()
    dataset.add_class("e", 1, "ellipse")
    dataset.add_image("e", 0, None)
    dataset.prepare()
    image, meta, ids, boxes, mask = modellib.load_image_gt(dataset, ThisConfig(), 0)
    assert image.shape == (512, 512, 3)
    np.testing.assert_array_equal(boxes, golden["train_gt_boxes"])
    np.testing.assert_array_equal(mask.sum(axis=(0, 1)), golden["train_mask_area"])
    stored = np.unpackbits(golden["train_mask_resized_packed"], axis=1).reshape(3, 512, 512)
    np.testing.assert_array_equal(np.moveaxis(mask, -1, 0), stored)
    parts = modellib.parse_image_meta(meta[None])
    np.testing.assert_array_equal(parts["window"][0], golden["train_window"])
    np.testing.assert_array_equal(ids, [1, 1, 1])
    _, _, _, boxes, mini = modellib.load_image_gt(dataset, ThisConfig(), 0, use_mini_mask=True)
    stored = np.unpackbits(golden["train_mini_masks"], axis=1).reshape(3, 56, 56)
    np.testing.assert_array_equal(np.moveaxis(mini, -1, 0), stored)
    whole = utils.expand_mask(boxes, mini, image.shape)
    assert utils.compute_overlaps_masks(whole, mask).diagonal().min() > 0.95


def test_boxes_are_computed_as_in_the_original(golden):
    boxes = golden["unit_boxes_px"]
    np.testing.assert_allclose(
        utils.norm_boxes(boxes, (480, 640)), golden["unit_boxes_norm_of_480x640"], atol=1e-7
    )
    np.testing.assert_array_equal(
        utils.denorm_boxes(golden["unit_denorm_half_in"], (513, 513)),
        golden["unit_denorm_half_of_513x513"],
    )
    refined = utils.box_refinement(boxes, golden["unit_boxes2_px"])
    np.testing.assert_allclose(refined, golden["unit_box_refinement_out"], atol=1e-5)
    overlaps = utils.compute_overlaps(boxes, golden["unit_boxes2_px"])
    np.testing.assert_allclose(overlaps, golden["unit_overlaps_out"], atol=1e-6)
    anchors = utils.generate_pyramid_anchors(
        (32, 64, 128, 256, 512), [0.5, 1, 2], [(1024 // s,) * 2 for s in (4, 8, 16, 32, 64)],
        [4, 8, 16, 32, 64], 1,
    )  # fmt: skip
    assert len(anchors) == golden["case_anchors_count"]
    np.testing.assert_allclose(anchors[::97], golden["case_anchors_px_every97"], atol=1e-3)


def test_average_precision_of_an_image():
    masks = np.zeros((20, 20, 2), bool)
    masks[:10, :10, 0] = masks[12:, 12:, 1] = True
    boxes = utils.extract_bboxes(masks)
    np.testing.assert_array_equal(boxes, [[0, 0, 10, 10], [12, 12, 20, 20]])
    ids = np.array([1, 2])
    found = boxes, ids, np.array([0.9, 0.8]), masks
    ap, precisions, recalls, overlaps = utils.compute_ap(boxes, ids, masks, *found)
    assert ap == 1
    np.testing.assert_array_equal(overlaps, np.eye(2))
    wrong = boxes, np.array([1, 1]), np.array([0.9, 0.8]), masks
    ap, precisions, recalls, _ = utils.compute_ap(boxes, ids, masks, *wrong)
    assert ap == 0.5
    np.testing.assert_array_equal(precisions, [1, 1, 0.5, 0])
    np.testing.assert_array_equal(recalls, [0, 0.5, 0.5, 1])
    assert utils.compute_ap_range(boxes, ids, masks, *found, verbose=0) == 1
    share, positive = utils.compute_recall(boxes[:1], boxes, 0.5)
    assert share == 0.5
    assert list(positive) == [0]


def test_images_are_resized_in_every_mode():
    image = np.full((30, 40, 3), 9, np.uint8)
    square, window, scale, padding, crop = utils.resize_image(image, 32, 64, mode="square")
    assert square.shape == (64, 64, 3)
    assert window == (16, 10, 48, 53)
    assert scale == pytest.approx(32 / 30)
    assert padding == [(16, 16), (10, 11), (0, 0)]
    assert crop is None
    assert utils.resize_image(image, 64, mode="pad64")[0].shape == (64, 128, 3)
    assert utils.resize_image(image, mode="none")[1] == (0, 0, 30, 40)
    part, *_, crop = utils.resize_image(image, 16, mode="crop")
    assert part.shape == (16, 16, 3)
    mask = utils.resize_mask(np.ones((30, 40, 2), bool), 1, [(0, 0)] * 3, crop)
    assert mask.shape == (16, 16, 2)
    with pytest.raises(ValueError, match="mode must be"):
        utils.resize_image(image, mode="squared")


def test_masks_that_do_not_fit_name_their_image(dataset):
    config = SquaresConfig()
    dataset.load_mask = lambda i: (np.zeros((64, 48, 1), bool), np.array([1]))
    with pytest.raises(ValueError, match=r"image 1 \(squares.1.*shape \(64, 48, 1\)"):
        modellib.load_image_gt(dataset, config, 1)
    dataset.load_mask = lambda i: (np.ones((48, 64, 1), bool), np.array([3]))
    with pytest.raises(ValueError, match=r"class id 3 is not in 1\.\.2"):
        modellib.load_image_gt(dataset, config, 1)


def test_augmentations_of_all_kinds_change_image_and_masks_alike(dataset):
    config = SquaresConfig()
    plain = modellib.load_image_gt(dataset, config, 1)

    class Flip:  # as imgaug's augmenters
        def to_deterministic(self):
            return self

        def augment_image(self, image):
            return image[:, ::-1]

    def flip(image, mask):
        return image[:, ::-1], mask[:, ::-1]

    def by_sample(sample, seed):
        return rk.data.RandomFlip()(sample, seed)

    for augmentation in (Flip(), flip):
        image, _, _, _, mask = modellib.load_image_gt(dataset, config, 1, augmentation=augmentation)
        np.testing.assert_array_equal(image, plain[0][:, ::-1])
        np.testing.assert_array_equal(mask, plain[4][:, ::-1])
    np.random.seed(0)  # noqa: NPY002, programs seed the global generator
    for augmentation in (rk.data.RandomFlip(), by_sample):
        seen = [
            modellib.load_image_gt(dataset, config, 1, augmentation=augmentation)[4]
            for _ in range(8)
        ]
        flipped = [np.array_equal(mask, plain[4][:, ::-1]) for mask in seen]
        same = [np.array_equal(mask, plain[4]) for mask in seen]
        assert any(flipped)
        assert any(same)
        assert all(np.logical_or(flipped, same))
    with pytest.raises(TypeError, match="augmentation must be"):
        modellib.load_image_gt(dataset, config, 1, augmentation=3)
    with pytest.raises(ValueError, match="must keep the shapes"):
        modellib.load_image_gt(dataset, config, 1, augmentation=lambda i, m: (i[:3], m))


def test_training_data_are_the_detectors_own_form(dataset):
    inputs, targets = next(iter(training_data(dataset, SquaresConfig(), shuffle=False)))
    assert inputs["images"].shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(inputs["image_sizes"], [[64, 64]])
    np.testing.assert_array_equal(targets["boxes"], [[[8, 12, 22, 26]]])
    np.testing.assert_array_equal(targets["labels"], [[0]])
    assert targets["masks"].shape == (1, 1, 64, 8)


def test_datasets_that_cannot_be_trained_on_are_named(dataset):
    class Other(SquaresConfig):
        NUM_CLASSES = 5

    with pytest.raises(ValueError, match="3 classes with the background, BG, dark, bright; NUM"):
        training_data(dataset, Other())
    with pytest.raises(ValueError, match="not prepared"):
        training_data(SquaresDataset(), SquaresConfig())
    empty = SquaresDataset()
    empty.prepare()
    with pytest.raises(ValueError, match="no images"):
        training_data(empty, SquaresConfig())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A program that trains the heads, and then all layers; and the epochs that it went through."""
    train, val = SquaresDataset(), SquaresDataset()
    for part, count in ((train, 4), (val, 2)):
        part.load(count)
        part.prepare()
    keras.utils.set_random_seed(3)
    folder = tmp_path_factory.mktemp("logs")
    model = modellib.MaskRCNN("training", SquaresConfig(), str(folder), **THIN)
    epochs = []
    record = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    stem = model.keras_model.backbone.get_layer("conv1").kernel
    before = stem.numpy().copy()
    model.train(train, val, 0.001, epochs=1, layers="heads", custom_callbacks=[record])
    after_heads = stem.numpy().copy()
    model.train(train, val, 0.001, epochs=2, layers="all", custom_callbacks=[record])
    return model, epochs, (before, after_heads, stem.numpy())


@pytest.mark.slow
def test_training_counts_epochs_in_total_and_trains_the_layers_named(trained):
    model, epochs, (before, after_heads, after_all) = trained
    assert epochs == [0, 1]
    assert model.epoch == 2
    np.testing.assert_array_equal(before, after_heads)
    assert not np.array_equal(before, after_all)
    files = sorted(p.name for p in Path(model.log_dir).glob("*.h5"))
    assert files == ["mask_rcnn_squares_0001.h5", "mask_rcnn_squares_0002.h5"]


@pytest.mark.slow
def test_the_last_checkpoint_is_found_read_and_detects(trained, dataset):
    model = trained[0]
    found = modellib.MaskRCNN("inference", SquaresConfig(), model.model_dir, **THIN)
    path = found.find_last()
    assert path.endswith("mask_rcnn_squares_0002.h5")
    found.load_weights(path, by_name=True)
    assert found.epoch == 2
    assert found.log_dir == model.log_dir
    with h5py.File(path) as file:
        assert "mrcnn_class_logits" in file
    (result,) = found.detect([dataset.load_image(0)], verbose=0)
    count = len(result["rois"])
    assert count <= 100
    assert result["rois"].dtype == np.int32
    assert result["rois"].max(initial=0) <= 64
    assert result["masks"].shape == (48, 64, count)
    assert result["masks"].dtype == bool
    assert set(result["class_ids"]) <= {1, 2}
    assert (np.diff(result["scores"]) <= 0).all()


@pytest.mark.slow
def test_layers_are_chosen_by_regular_expressions_over_matterports_names(trained):
    model = trained[0]
    layers = rk.convert.matterport.layer_names(model.keras_model)
    model.set_trainable(modellib.LAYERS["4+"])
    assert layers["res4a_branch2a"].trainable
    assert not layers["res3a_branch2a"].trainable
    assert not layers["conv1"].trainable
    model.set_trainable(r"mrcnn_mask.*")
    assert [n for n, layer in layers.items() if layer.trainable and layer.trainable_weights] == [
        *(f"mrcnn_mask_conv{i}" for i in range(1, 5)),
        *("mrcnn_mask_deconv", "mrcnn_mask"),
    ]
    with pytest.raises(ValueError, match="no layer matches 'head'"):
        model.set_trainable("head")


def test_settings_that_are_ignored_are_named_once():
    class Own(SquaresConfig):
        USE_MINI_MASK = False
        DETECTION_MIN_CONFIDENSE = 0.5

    with pytest.warns(UserWarning, match="USE_MINI_MASK.*did you mean DETECTION_MIN_CONFIDENCE"):
        modellib._warn_of_ignored(Own())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        modellib._warn_of_ignored(Own())


@pytest.mark.parametrize(
    ("settings", "mode", "message"),
    [
        ({}, "train", "mode must be 'training' or 'inference'"),
        ({"NUM_CLASSES": 1}, "inference", "NUM_CLASSES must be at least 2"),
        ({"BACKBONE": len}, "inference", "BACKBONE must be 'resnet50' or 'resnet101'"),
        ({"BACKBONE": "resnet18"}, "inference", "BACKBONE: backbone must be one of"),
        ({"IMAGE_RESIZE_MODE": "crop"}, "inference", "'crop' is for training alone"),
        ({"IMAGE_MAX_DIM": 100}, "training", "IMAGE_MAX_DIM: max_dim must be a multiple of 64"),
        ({"IMAGE_CHANNEL_COUNT": 1}, "training", "IMAGE_CHANNEL_COUNT must be 3"),
    ],
)
def test_settings_that_cannot_be_followed_are_errors(settings, mode, message, tmp_path):
    config = type("Own", (SquaresConfig,), settings)()
    with pytest.raises(ValueError, match=message):
        modellib.MaskRCNN(mode, config, tmp_path)


@pytest.mark.slow
def test_what_the_other_mode_does_is_refused_and_what_is_absent_is_named(trained, dataset):
    model = trained[0]
    with pytest.raises(ValueError, match="detect needs a model of mode 'inference'"):
        model.detect([dataset.load_image(0)])
    with pytest.raises(AttributeError, match="run_graph looks into matterport's own graph"):
        model.run_graph([], [])
    empty = modellib.MaskRCNN.__new__(modellib.MaskRCNN)
    empty.config, empty.model_dir = SquaresConfig(), "/nowhere"
    with pytest.raises(FileNotFoundError, match="no folder of a training of 'squares'"):
        empty.find_last()


def test_weights_that_cannot_be_fetched_say_which_file_to_put_where(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise utils.urllib.error.URLError("no network")

    monkeypatch.setattr(utils.urllib.request, "urlopen", offline)
    path = tmp_path / "mask_rcnn_coco.h5"
    with pytest.raises(OSError, match=r"v2\.0/mask_rcnn_coco\.h5 cannot be fetched.*put it at"):
        utils.download_trained_weights(path)
    assert not path.exists()


def test_pictures_are_drawn(dataset, monkeypatch, tmp_path):
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
    image = dataset.load_image(1)
    masks, ids = dataset.load_mask(1)
    boxes = utils.extract_bboxes(masks)
    visualize.display_instances(image, boxes, masks, ids, dataset.class_names, np.array([0.9]))
    assert shown[0].axes[0].texts[0].get_text() == "bright 0.900"
    visualize.display_top_masks(image, masks, ids, dataset.class_names)
    visualize.display_images([image, image], ["a", "b"])
    visualize.draw_boxes(image, boxes=boxes, refined_boxes=boxes + 2)
    truth, found = (boxes, ids, masks), (boxes, ids, np.array([0.9]), masks)
    visualize.display_differences(image, *truth, *found, dataset.class_names)
    visualize.plot_precision_recall(1.0, np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    visualize.plot_overlaps(ids, ids, np.array([0.9]), np.eye(1), dataset.class_names)
    assert len(shown) == 7
    _, ax = plt.subplots()
    visualize.display_instances(
        image, boxes, masks, ids, dataset.class_names, ax=ax, show_mask=False, show_bbox=False
    )
    assert len(shown) == 7
    plt.close("all")
    painted = visualize.apply_mask(np.zeros((2, 2, 3)), np.eye(2), (1.0, 0.5, 0.0))
    np.testing.assert_allclose(painted[0, 0], [127.5, 63.75, 0])
    assert len(set(visualize.random_colors(5))) == 5
    with pytest.raises(ValueError, match="must be equally many"):
        visualize.display_instances(image, boxes, masks, ids[:0], dataset.class_names)
