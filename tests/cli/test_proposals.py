"""`rcnn proposals`: pictures of an image, files of a dataset, and errors that take one line."""

import json
import shutil

import matplotlib.pyplot as plt
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from rcnn_keras.cli import main
from rcnn_keras.data.images import read_image
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.proposals import load_proposals, selective_search
from rcnn_keras.proposals.viewer import draw_proposals


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder with three drawn images and their annotations.json."""
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(3, size=(64, 80), out=folder)
    return folder


def rcnn(*arguments):
    return CliRunner().invoke(main, ["proposals", *(str(argument) for argument in arguments)])


def error_of(*arguments):
    result = rcnn(*arguments)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_help_has_an_example():
    result = rcnn("--help")
    assert result.exit_code == 0
    assert "Example:\n    rcnn proposals " in result.output


def test_the_first_proposals_of_an_image_are_drawn(shapes, tmp_path):
    file, out = shapes / "shapes_000001.png", tmp_path / "new" / "picture.png"
    result = rcnn(file, "--top", 3, "--out", out, "--min-size", 10)
    assert result.exit_code == 0, result.output
    image = read_image(file)
    boxes = selective_search(image, min_size=10)
    np.testing.assert_array_equal(Image.open(out), draw_proposals(image, boxes, 3))
    assert result.output == f"{file}: {len(boxes)} proposals\n"
    assert (np.asarray(Image.open(out)) != image).any()


def test_mode_and_similarities_reach_the_search(shapes, tmp_path):
    file, image = shapes / "shapes_000001.png", read_image(shapes / "shapes_000001.png")
    options = ("--mode", "quality", "--similarity", "size", "--similarity", "fill")
    result = rcnn(file, *options, "--out", tmp_path / "a.png")
    expected = len(selective_search(image, "quality", ["size", "fill"]))
    assert expected != len(selective_search(image, "quality"))
    assert result.output == f"{file}: {expected} proposals\n"


def test_a_window_is_shown(shapes, monkeypatch):
    shown = []
    monkeypatch.setattr("rcnn_keras.proposals.viewer.check_window", lambda: None)
    show = "rcnn_keras.proposals.viewer.ProposalViewer.show"
    monkeypatch.setattr(show, lambda viewer: shown.append(viewer.top))
    plt.switch_backend("agg")
    assert rcnn(shapes / "shapes_000000.png", "--show", "--top", 2).exit_code == 0
    assert shown == [2]
    plt.close("all")


def test_an_impossible_window_is_refused_before_the_search(shapes, monkeypatch):
    plt.switch_backend("agg")
    assert "cannot open a window here: its backend is agg" in error_of(
        shapes / "shapes_000000.png", "--show"
    )


def test_a_coco_file_gets_a_file_of_proposals(shapes, tmp_path):
    out = tmp_path / "proposals.npz"
    command = (shapes / "annotations.json", "--out", out, "--workers", 2, "--min-size", 12)
    result = rcnn(*command)
    assert result.exit_code == 0, result.output
    found = load_proposals(out)
    assert len(found) == 3
    assert found.header["arguments"]["min_size"] == 12
    total = sum(map(len, found.values()))
    assert result.output.endswith(f"{out}: {total} proposals of 3 images\n")
    assert rcnn(*command).output.endswith(f"{out}: {total} proposals of 3 images\n")
    message = error_of(*command[:-1], 13)
    assert f"{out} holds other proposals" in message
    assert "Remove it, or name another" in message


def test_images_may_lie_elsewhere(shapes, tmp_path):
    shutil.copy(shapes / "annotations.json", tmp_path / "train.json")
    command = (tmp_path / "train.json", "--out", tmp_path / "p.npz", "--workers", 1)
    assert "shapes_000000.png" in error_of(*command)
    assert rcnn(*command, "--images", shapes).exit_code == 0
    assert len(load_proposals(tmp_path / "p.npz")) == 3


def test_a_voc_folder_gets_the_proposals_of_a_split(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.new("RGB", (20, 20)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        box = "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename>"
            "<size><width>20</width><height>20</height></size>"
            f"<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
        )
    for split, text in {"train": "a\n", "val": "b\nc\n"}.items():
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text(text)
    for options, count in (((), 1), (("--split", "val"), 2)):
        out = tmp_path / f"{count}.npz"
        result = rcnn(tmp_path, *options, "--out", out, "--workers", 1)
        assert result.exit_code == 0, result.output
        assert [len(boxes) for boxes in load_proposals(out).values()] == [1] * count


def test_missing_files_and_options_that_do_not_fit_are_reported(shapes, tmp_path):
    image, dataset = shapes / "shapes_000000.png", shapes / "annotations.json"
    out = tmp_path / "out"
    none = tmp_path / "none.png"
    assert f"{none}: no such file" in error_of(none, "--out", out)
    assert "an image needs --out PNG or --show" in error_of(image)
    assert "a dataset needs --out FILE" in error_of(dataset)
    assert "--top is not for" in error_of(dataset, "--out", out, "--top", 5)
    assert "--show is not for" in error_of(dataset, "--out", out, "--show")
    assert "--workers is not for" in error_of(image, "--out", out, "--workers", 2)
    assert "--split is not for" in error_of(image, "--out", out, "--split", "val")
    assert "'slow' is not one of 'fast', 'quality'" in error_of(image, "--mode", "slow")
    before = image.read_bytes()
    assert f"{image} would be overwritten" in error_of(image, "--out", image)
    assert image.read_bytes() == before
    text = tmp_path / "text.jpg"
    text.write_text("no image")
    assert f"{text}: is not an image" in error_of(text, "--out", out)
    (tmp_path / "bad.json").write_text(json.dumps({"images": 3}))
    assert f"{tmp_path / 'bad.json'}" in error_of(tmp_path / "bad.json", "--out", out)
    assert not out.exists()
