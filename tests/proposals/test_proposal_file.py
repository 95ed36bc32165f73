import json
import zipfile

import cv2
import numpy as np
import pytest

import rcnn_keras
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.proposals import check_proposals, load_proposals, save_proposals

BOXES = {
    7: np.float32([[0, 0, 640, 480], [3, 4, 50, 60]]),
    3: np.zeros((0, 4), np.float32),
    12: np.float32([[10, 20, 30, 40]]),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "proposals.npz"


def test_saved_proposals_are_loaded_unchanged(path):
    sizes = {7: (480, 640), 12: (50, 60)}
    save_proposals(path, BOXES, method="by hand", arguments={"n": (1, 2)}, image_sizes=sizes)
    found = load_proposals(path)
    assert list(found) == [7, 3, 12]
    assert len(found) == 3
    assert 3 in found
    assert 4 not in found
    for image_id, boxes in BOXES.items():
        assert found[image_id].dtype == np.float32
        np.testing.assert_array_equal(found[image_id], boxes)
    assert found[3].shape == (0, 4)
    assert [found.image_size(i) for i in found] == [(480, 640), None, (50, 60)]
    assert found.header == {
        "format": "rcnn_keras proposals 1",
        "method": "by hand",
        "arguments": {"n": [1, 2]},
        "opencv": cv2.__version__,
        "rcnn_keras": rcnn_keras.__version__,
    }
    with pytest.raises(KeyError):
        found[4]


def test_numpy_reads_the_file_without_this_package(path):
    save_proposals(path, BOXES, method="by hand")
    with np.load(path) as arrays:
        assert arrays["boxes"].dtype == np.uint16  # all coordinates are whole pixels
        assert arrays["row_splits"].tolist() == [0, 2, 2, 3]
        assert arrays["image_ids"].tolist() == [7, 3, 12]
    assert json.loads(zipfile.ZipFile(path).read("header.json"))["method"] == "by hand"


@pytest.mark.parametrize(
    "corner", [0.5, -1.0, 65_536.0, np.float32(1 / 3)], ids=["half", "negative", "far", "third"]
)
def test_fractional_and_large_coordinates_are_kept_exactly(path, corner):
    boxes = np.float32([[corner, 0, 70_000, 10], [1, 2, 3, 4]])
    save_proposals(path, {1: boxes}, method="by hand")
    np.testing.assert_array_equal(load_proposals(path)[1], boxes)


def test_files_without_images_or_boxes_are_loaded(path):
    save_proposals(path, {}, method="by hand")
    assert dict(load_proposals(path)) == {}
    save_proposals(path, {5: []}, method="by hand")
    assert load_proposals(path)[5].shape == (0, 4)


def test_the_same_proposals_give_the_same_bytes(path, monkeypatch):
    save_proposals(path, BOXES, method="by hand")
    first = path.read_bytes()
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    save_proposals(path, BOXES, method="by hand")
    assert path.read_bytes() == first
    assert {entry.date_time[0] for entry in zipfile.ZipFile(path).infolist()} == {1980}


def test_a_failed_write_keeps_the_older_file(path):
    save_proposals(path, BOXES, method="by hand")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="image 2"):
        save_proposals(path, {1: BOXES[7], 2: [[5, 5, 4, 6]]}, method="by hand")
    with pytest.raises(TypeError):
        save_proposals(path, BOXES, method="by hand", arguments={"x": object()})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[1, 2, 3]], r"image 9: boxes must be \(R, 4\), not \(1, 3\)"),
        ([1, 2, 3, 4], r"image 9: .*\(4,\)"),
        ([[0, 0, 1, 1], [3, 0, 2, 5]], r"image 9: \[3.0, 0.0, 2.0, 5.0\] is not a box"),
        ([[0, 0, np.nan, 1]], "image 9: .*nan"),
        ([[0, 0, np.inf, 1]], "image 9: .*inf"),
    ],
)
def test_invalid_boxes_are_refused(path, boxes, message):
    with pytest.raises(ValueError, match=message):
        save_proposals(path, {9: boxes}, method="by hand")
    assert not path.exists()


def test_a_file_truncated_anywhere_is_refused_by_its_name(path, tmp_path):
    save_proposals(path, BOXES, method="by hand")
    whole = path.read_bytes()
    truncated = tmp_path / "truncated.npz"
    for length in range(0, len(whole), 53):
        truncated.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"truncated\.npz is not a complete file of proposals"):
            load_proposals(truncated)


def test_damage_inside_a_file_is_refused_by_its_name(path):
    many = {i: np.random.default_rng(i).random((50, 2)).repeat(2, 1) * 100 for i in range(20)}
    many = {i: np.sort(boxes)[:, [0, 2, 1, 3]] for i, boxes in many.items()}
    save_proposals(path, many, method="by hand")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = bytes(255 - value for value in content[middle : middle + 20])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"proposals\.npz is not a complete file of proposals"):
        load_proposals(path)


def test_files_of_another_kind_are_refused_by_their_name(path):
    def refused(message):
        with pytest.raises(ValueError, match=rf"proposals\.npz is not a complete file.*{message}"):
            load_proposals(path)

    path.write_text("image,x1\n")
    refused("not a zip")
    np.savez(path.with_suffix(""), boxes=np.zeros((2, 4)))
    refused("header.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({"format": "another 3"}))
    refused("format is 'another 3'")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", "[1]")
    refused("")
    with pytest.raises(FileNotFoundError, match="none"):
        load_proposals(path.with_name("none.npz"))


@pytest.mark.parametrize(
    "changed",
    [
        {"row_splits": np.array([0, 2, 1, 3])},
        {"row_splits": np.array([0, 2, 2, 4])},
        {"row_splits": np.array([0, 3])},
        {"image_ids": np.array([7, 3, 7])},
        {"boxes": np.zeros((3, 5), np.uint16)},
        {"image_sizes": np.zeros((3,), np.int32)},
    ],
)
def test_arrays_of_mismatched_lengths_are_refused(path, changed):
    save_proposals(path, BOXES, method="by hand")
    with np.load(path) as arrays:
        content = dict(arrays)
    header = content.pop("header.json")
    np.savez(path.with_suffix(""), **(content | changed))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("header.json", header)
    with pytest.raises(ValueError, match=r"proposals\.npz is not a complete file"):
        load_proposals(path)


def test_images_without_proposals_are_named():
    dataset = draw_shapes(13, size=(32, 40))
    ids = [record.image_id for record in dataset]
    check_proposals(dict.fromkeys([*ids, 1000], np.zeros((1, 4))), dataset)
    with pytest.raises(ValueError, match=rf"2 of 13 images .*image {ids[4]} \(.*png\), {ids[9]}"):
        check_proposals(dict.fromkeys(set(ids) - {ids[4], ids[9]}, np.zeros((1, 4))), dataset)
    with pytest.raises(ValueError, match=r"13 of 13 .* and 3 more"):
        check_proposals({}, dataset)


def test_images_of_another_size_are_named(path):
    dataset = draw_shapes(3, size=(32, 40))
    boxes = {record.image_id: np.zeros((1, 4)) for record in dataset}
    first, second, third = boxes
    sizes = {first: (32, 40), second: (40, 32)}
    save_proposals(path, boxes, method="by hand", image_sizes=sizes)
    message = rf"image {second} \(.*\) has 40x32 pixels, not 32x40$"
    with pytest.raises(ValueError, match=message):
        check_proposals(load_proposals(path), dataset)
    save_proposals(path, boxes, method="by hand", image_sizes={third: (32, 40)})
    check_proposals(load_proposals(path), dataset)
