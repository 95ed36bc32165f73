"""What is read from COCO files."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from rcnn_keras.data import DatasetError, check_coco, load_coco

pytestmark = pytest.mark.usefixtures("no_unexpected_warning")


def test_reads_what_the_file_says(file):
    polygon = [[1.0, 2.0, 11.0, 2.0, 11.0, 22.0]]
    file.annotations[0].update(segmentation=polygon, area=100.5)
    dataset = load_coco(file.write())
    assert dataset.classes == ("cat", "dog", "owl")  # by category id
    assert dataset.category_ids == (3, 7, 90)
    assert dataset.problems == ()
    assert dataset.name == "data"
    first, second = dataset
    assert (first.image_id, first.height, first.width) == (11, 40, 60)
    assert first.path == str(file.folder / "a.png")
    assert first.boxes.tolist() == [[1, 2, 11, 22], [5.5, 6.25, 12.5, 14.25]]
    assert first.labels.tolist() == [2, 0]
    assert first.crowd.tolist() == [False, True]
    assert first.segmentations == (polygon, None)
    assert first.areas.tolist() == [100.5, 56]
    assert (second.image_id, len(second), second.segmentations) == (12, 0, None)
    assert check_coco(file.write()) == []


def test_classes_restrict_and_reorder(file):
    dataset = load_coco(file.write(), classes=["owl", "cat"])
    assert dataset.classes == ("owl", "cat")
    assert dataset[0].labels.tolist() == [0, 1]
    assert [len(r) for r in load_coco(file.write(), classes=["dog"])] == [0, 0]
    with pytest.raises(ValueError, match=r"'ow' \(nearest: 'owl'\), 'Dog' \(nearest: 'dog'\)"):
        load_coco(file.write(), classes=["ow", "cat", "Dog"])
    with pytest.raises(ValueError, match="repeated"):
        load_coco(file.write(), classes=["cat", "cat"])


def test_folder_of_images(file, tmp_path, monkeypatch):
    path = file.write()
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / name).rename(tmp_path / "images" / name)
    for images in (None, tmp_path / "images", str(tmp_path / "images")):
        assert load_coco(path, images)[0].path == str(tmp_path / "images/a.png")
    monkeypatch.chdir(tmp_path)
    assert load_coco("data.json")[0].path == "./images/a.png"
    assert load_coco("data.json", "images")[0].path == "images/a.png"
    with pytest.raises(DatasetError, match="no such folder") as error:
        load_coco(path, tmp_path / "pictures")
    assert len(error.value.problems) == 1  # not one for each image


def test_check_decodes_what_load_takes_on_trust(file):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    path = file.folder / "b.png"
    Image.fromarray(noise).save(path)
    content = bytearray(path.read_bytes())
    middle = content.index(b"IDAT") + 500
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    data = file.write()
    assert len(load_coco(data)) == 2
    assert check_coco(data, decode=False) == []
    (problem,) = check_coco(data)
    assert problem.fatal
    assert problem.id == "image 12"


def box_of(annotation):
    x, y, width, height = annotation["bbox"]
    return [x, y, x + width, y + height]


@pytest.mark.parametrize(
    ("name", "images", "objects", "crowd"),
    [
        ("coco_by/train.json", 45, 358, 5),
        ("coco_by/val.json", 40, 391, 6),
        ("nuclei/val.json", 52, 1701, 0),
        ("bccd/val.json", 87, 1137, 0),
        ("cards/val.json", 67, 143, 0),
    ],
)
def test_agrees_with_pycocotools(shared_data, name, images, objects, crowd):
    dataset = load_coco(shared_data / name)
    assert len(dataset) == images
    assert sum(len(r) for r in dataset) == objects
    assert sum(r.crowd.sum() for r in dataset) == crowd
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(shared_data / name))
    assert [r.image_id for r in dataset] == coco.getImgIds()
    assert list(dataset.category_ids) == coco.getCatIds()
    assert list(dataset.classes) == [c["name"] for c in coco.loadCats(coco.getCatIds())]
    for r in dataset:
        annotations = coco.imgToAnns[r.image_id]
        np.testing.assert_array_equal(
            r.boxes, np.reshape([*map(box_of, annotations)], (-1, 4)).astype("f4")
        )
        assert [dataset.category_ids[i] for i in r.labels] == [
            a["category_id"] for a in annotations
        ]
        assert r.crowd.tolist() == [bool(a["iscrowd"]) for a in annotations]
        if annotations:
            assert r.areas.tolist() == [a["area"] for a in annotations]
        if r.segmentations is not None:
            assert list(r.segmentations) == [a["segmentation"] for a in annotations]
    assert dataset.max_objects == max(len(a) for a in coco.imgToAnns.values())


def test_check_of_real_data(shared_data):
    assert check_coco(shared_data / "coco_by/train.json") == []
