"""`rcnn explain`: a page, and errors of one line that come before the work."""

import keras
import numpy as np
import pytest

from rcnn_keras.data import draw_shapes
from rcnn_keras.models import FasterRCNN, FastRCNN

SMALL = {"box_units": 8, "min_size": 64, "max_size": 64, "box_score_thresh": 0.0}
CLASSES = ("circle", "triangle", "square", "star")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn images with annotations, two models, and files that are neither."""
    folder = tmp_path_factory.mktemp("explain")
    draw_shapes(3, size=(64, 64), out=folder / "drawn")
    keras.utils.set_random_seed(0)
    images = keras.Input((None, None, 3))
    backbone = keras.Model(images, keras.layers.Conv2D(8, 3, 8, "same")(images))
    few = {"rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 10}
    FasterRCNN(backbone, CLASSES, **SMALL, **few).save(folder / "faster.keras")
    FastRCNN("zf", CLASSES, **SMALL).save(folder / "fast.keras")
    keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)]).save(folder / "other.keras")
    (folder / "words.jpg").write_text("not a picture")
    return folder


@pytest.mark.slow  # it traces the whole graph
def test_a_page_with_the_ground_truth_of_a_file(rcnn, folder):
    image, out = folder / "drawn" / "shapes_000001.png", folder / "new" / "page.html"
    data = folder / "drawn" / "annotations.json"
    result = rcnn(
        "explain", image, "--model", folder / "faster.keras", "--out", out, "--data", data
    )
    assert result.exit_code == 0, result.output
    assert f"{out}: " in result.output
    page = out.read_text("utf-8")
    assert "shapes_000001.png inside a FasterRCNN" in page
    assert '<h2 id="training">' in page
    assert '<h2 id="anchors">' in page


@pytest.mark.slow
def test_a_page_of_proposals_by_selective_search(rcnn, folder):
    image, out = folder / "drawn" / "shapes_000001.png", folder / "fast.html"
    result = rcnn("explain", image, "--model", folder / "fast.keras", "--out", out)
    assert result.exit_code == 0, result.output
    assert "proposals were given beforehand" in out.read_text("utf-8")


def test_what_cannot_be_explained_is_said_in_a_line(error_of, folder):
    image, model, out = (
        folder / "drawn" / "shapes_000001.png",
        folder / "faster.keras",
        folder / "x",
    )

    def error(image=image, model=model, out=out, *more):
        return error_of("explain", image, "--model", model, "--out", out, *more)

    assert "none.png: no such file" in error(folder / "none.png")
    assert "is a folder: name an image" in error(folder / "drawn")
    assert "words.jpg: is not an image" in error(folder / "words.jpg")
    assert "holds a Sequential, not a detector" in error(model=folder / "other.keras")
    assert "model file" in error(model=folder / "none.keras")
    assert "would be overwritten" in error(out=image)
    assert "is a directory" in error(out=folder / "drawn")
    proposals = folder / "proposals.npz"
    assert "those of the images of --data" in error(image, model, out, "--proposals", proposals)
    assert "are for --data" in error(image, model, out, "--split", "val")
    assert "no such file" in error(image, model, out, "--data", folder / "none.json")
    assert not out.exists()


def test_an_image_that_is_not_in_the_data_is_named(error_of, folder, tmp_path):
    draw_shapes(1, size=(64, 64), out=tmp_path)
    (tmp_path / "shapes_000000.png").rename(tmp_path / "mine.png")
    message = error_of(
        *("explain", tmp_path / "mine.png", "--model", folder / "faster.keras"),
        *("--out", tmp_path / "page.html", "--data", folder / "drawn" / "annotations.json"),
    )
    assert "has no image of the name mine.png" in message


def test_proposals_of_a_file_are_for_models_that_take_them(error_of, folder, tmp_path):
    np.savez(tmp_path / "some.npz")
    message = error_of(
        *("explain", folder / "drawn" / "shapes_000000.png", "--model", folder / "faster.keras"),
        *("--out", tmp_path / "page.html", "--data", folder / "drawn" / "annotations.json"),
        *("--proposals", tmp_path / "some.npz"),
    )
    assert "finds its own proposals" in message
