import contextlib
import io
import json
import warnings

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from rcnn_keras.data import DatasetError, check_coco, load_coco


class File:
    """A COCO file of two images (40x60 pixels) and three classes, to be spoilt in one place."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("a.png", "b.png"):
            Image.new("RGB", (60, 40), "red").save(folder / name)
        self.content = {
            "images": [
                {"id": 11, "file_name": "a.png", "width": 60, "height": 40},
                {"id": 12, "file_name": "b.png", "width": 60, "height": 40},
            ],
            "annotations": [
                self.annotation(1, 11, 90, [1, 2, 10, 20]),
                self.annotation(2, 11, 3, [5.5, 6.25, 7, 8], iscrowd=1),
            ],
            "categories": [
                {"id": 90, "name": "owl"},
                {"id": 3, "name": "cat"},
                {"id": 7, "name": "dog"},
            ],
        }
        self.images, self.annotations, self.categories = self.content.values()

    def annotation(self, id, image_id, category_id, bbox, **more):
        return {"id": id, "image_id": image_id, "category_id": category_id, "bbox": bbox, **more}

    def write(self):
        path = self.folder / "data.json"
        path.write_text(json.dumps(self.content))
        return path

    def mended(self):
        """Load the file, which has to warn once; return the dataset and the warning."""
        with pytest.warns(UserWarning) as caught:  # noqa: PT030, the callers look at the text
            dataset = load_coco(self.write())
        assert len(caught) == 1
        assert caught[0].filename == __file__
        return dataset, str(caught[0].message)

    def fatal(self, *texts):
        """Load and check the file; both have to find one fatal problem that says these texts."""
        path = self.write()
        with pytest.raises(DatasetError, match="1 problem in") as error:
            load_coco(path)
        for text in (str(path.name), *texts):
            assert text in str(error.value)
        (problem,) = (p for p in check_coco(path) if p.fatal)
        assert problem in error.value.problems


@pytest.fixture
def file(tmp_path):
    return File(tmp_path)


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


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


class TestMended:
    def test_box_over_the_border(self, file):
        file.annotations[0]["bbox"] = [-5, 30, 20, 20]
        dataset, warning = file.mended()
        assert dataset[0].boxes[0].tolist() == [0, 30, 15, 40]
        assert warning.startswith("data: 1 box clipped to its image (rcnn data check ")
        assert "data.json" in warning
        (problem,) = dataset.problems
        assert (problem.id, problem.field, problem.fatal) == ("annotation 1", "bbox", False)
        assert problem.value == "[-5, 30, 20, 20]"
        assert check_coco(file.write()) == [problem]

    def test_rounding_is_no_problem(self, file):
        file.annotations[0]["bbox"] = [50.1, 30, 9.905, 10.004]
        dataset = load_coco(file.write())
        assert dataset.problems == ()
        assert dataset[0].boxes[0].tolist()[2:] == [60, 40]

    @pytest.mark.parametrize("bbox", [[3, 4, 0, 5], [3, 4, 5, 0], [3, 4, 0.0009, 5], [3, 4, 0, 0]])
    def test_no_area(self, file, bbox):
        file.annotations[0]["bbox"] = bbox
        dataset, warning = file.mended()
        assert "1 box without area dropped" in warning
        assert dataset[0].labels.tolist() == [0]
        assert dataset[0].crowd.tolist() == [True]

    @pytest.mark.parametrize("bbox", [[60, 4, 5, 5], [-9, 4, 9, 5], [3, 100, 5, 5]])
    def test_outside(self, file, bbox):
        file.annotations[0]["bbox"] = bbox
        dataset, warning = file.mended()
        assert "1 box outside its image dropped" in warning
        assert len(dataset[0]) == 1

    def test_counts(self, file):
        boxes = [[-5, 1, 20, 20], [1, -5, 20, 20], [1, 1, 200, 20], [1, 1, 0, 2], [1, 1, 2, 0]]
        for i, box in enumerate(boxes, start=100):
            file.annotations.append(file.annotation(i, 12, 7, box))
        dataset, warning = file.mended()
        assert "3 boxes clipped to their image, 2 boxes without area dropped (" in warning
        assert len(dataset[1]) == 3
        assert len(dataset.problems) == 5

    def test_size_missing(self, file):
        del file.images[0]["width"]
        dataset, warning = file.mended()
        assert "1 size missing, taken from the image" in warning
        assert (dataset[0].height, dataset[0].width) == (40, 60)

    @pytest.mark.parametrize(
        ("segmentation", "where"),
        [
            ([[1, 2, 3, 4]], ".0 = [1, 2, 3, 4]"),
            ([[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7]], ".1 = [1, 2, 3, 4, 5, 6, 7]"),
            ([[]], ".0 = []"),
            ([1, 2, 3, 4, 5, 6], ".0 = 1"),
            ([[1, 2, 3, 4, 5, "6"]], ".0 = [1, 2"),
            ([[1, 2, 3, 4, 5, None]], ".0 = [1, 2"),
            ([[1, 2, 3, 4, 5, float("nan")]], ".0 = [1, 2"),
            ([[1, 2, 3, 4, 5, 10**400]], ".0 = [1, 2"),
            ("polygon", " = polygon"),
            ({"counts": [0, 2400]}, ".size = missing"),
            ({"size": [60, 40], "counts": [0, 2400]}, ".size = [60, 40]"),
            ({"size": [40, 60]}, ".counts = missing"),
            ({"size": [40, 60], "counts": [0, 2399]}, ".counts = [0, 2399]"),
            ({"size": [40, 60], "counts": [-1, 2401]}, ".counts = [-1, 2401]"),
            ({"size": [40, 60], "counts": ""}, ".counts = "),
            ({"size": [40, 60], "counts": "T3b1YV2"}, ".counts = T3b1YV2"),  # a pixel short
            ({"size": [40, 60], "counts": "T3b1ZV"}, ".counts = T3b1ZV"),  # cut off
            ({"size": [40, 60], "counts": "T3 1ZV2"}, ".counts = T3 1ZV2"),
            ({"size": [40, 60], "counts": "T3é1ZV2"}, ".counts = T3é1ZV2"),
            ({"size": [40, 60], "counts": "o" * 20 + "1"}, ".counts = ooo"),
            ({"size": [40, 60], "counts": 2400}, ".counts = 2400"),
            ([[1, 2, 3, 4, 5, 601]], ".0 = [1, 2, 3, 4, 5, 601]"),
        ],
    )
    def test_malformed_segmentation(self, file, segmentation, where):
        sound = [[1, 2, 11, 2, 11, 22], [5, 5, 6, 5, 6, 6.5, 5, 6]]
        file.annotations[0]["segmentation"] = segmentation
        file.annotations[1]["segmentation"] = sound
        dataset, warning = file.mended()
        assert "1 malformed segmentation dropped, its box kept" in warning
        assert dataset[0].segmentations == (None, sound)
        assert len(dataset[0]) == 2
        (problem,) = dataset.problems
        assert f"annotation 1: segmentation{where}" in str(problem)

    def test_no_object_at_all(self, file):
        file.annotations.clear()
        dataset, warning = file.mended()
        assert warning.startswith("data: 1 dataset without any object (")
        assert len(dataset) == 2


@pytest.mark.parametrize("counts", [[100, 50, 2250], "T3b1ZV2"])
def test_run_lengths_of_the_image_are_kept(file, counts):
    rle = {"size": [40, 60], "counts": counts}
    file.annotations[1]["segmentation"] = rle
    assert load_coco(file.write())[0].segmentations == (None, rle)
    del file.images[0]["width"]  # then the size is the file's
    rle["size"] = [40, 61]
    dataset, warning = file.mended()
    assert "1 malformed segmentation dropped" in warning
    assert dataset[0].segmentations is None


def turned(file, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[2:22, 1:11] = 255  # annotation 1, on the pixels as they are stored
    Image.fromarray(pixels).save(file.folder / "a.png", exif=exif)
    del file.annotations[1]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_on_stored_pixels_turn_upright(file, orientation):
    from rcnn_keras.data import read_image

    turned(file, orientation)
    file.annotations[0]["segmentation"] = [[1, 2, 11, 2, 11, 22, 1, 22]]
    dataset, warning = file.mended()
    assert "boxes turned upright" in warning
    assert (dataset[0].height, dataset[0].width) == (60, 40)
    white = np.argwhere(read_image(dataset[0].path)[..., 0])
    (y1, x1), (y2, x2) = white.min(0), white.max(0) + 1
    assert dataset[0].boxes.tolist() == [[x1, y1, x2, y2]]
    points = np.reshape(dataset[0].segmentations[0], (-1, 2))
    assert [*points.min(0), *points.max(0)] == [x1, y1, x2, y2]


def test_boxes_on_the_upright_image_stay(file):
    turned(file, 6)
    file.images[0].update(width=40, height=60)
    assert load_coco(file.write())[0].boxes.tolist() == [[1, 2, 11, 22]]
    turned(file := File(file.folder), 3)
    assert load_coco(file.write())[0].boxes.tolist() == [[1, 2, 11, 22]]


class TestFatal:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ('{"images": [],\n  oops}', "line 2 column 3"),
            ("", "is not JSON"),
            ("[1, 2]", "is a JSON list"),
            ('"text"', "is a JSON str"),
        ],
    )
    def test_not_json(self, file, text, message):
        path = file.write()
        path.write_text(text)
        with pytest.raises(DatasetError, match=message):
            load_coco(path)
        assert len(check_coco(path)) == 1

    def test_not_text(self, file):
        path = file.write()
        path.write_bytes(b'{"images": "\xff\xfe\xfa"}')
        with pytest.raises(DatasetError, match="is not JSON"):
            load_coco(path)

    def test_no_file(self, tmp_path):
        with pytest.raises(DatasetError, match=r"none\.json: cannot be read: No such file"):
            load_coco(tmp_path / "none.json")

    @pytest.mark.parametrize("key", ["images", "annotations", "categories"])
    def test_missing_list(self, file, key):
        del file.content[key]
        file.fatal(f"{key} = missing")

    def test_list_of_another_type(self, file):
        file.content["annotations"] = {"1": 2}
        file.fatal("annotations = {'1': 2}: a COCO file has a list here")

    @pytest.mark.parametrize("kind", ["images", "categories"])
    def test_empty_list(self, file, kind):
        file.annotations.clear()
        file.content[kind].clear()
        file.fatal("there is no " + {"images": "image", "categories": "category"}[kind])

    @pytest.mark.parametrize("id", [None, "7", 1.5, True, 2**63, [1]])
    @pytest.mark.parametrize("kind", ["images", "annotations", "categories"])
    def test_id_that_is_none(self, file, kind, id):
        item = {"images": file.images[1], "annotations": file.annotations[1]}.get(
            kind, file.categories[2]
        )
        item["id"] = id
        file.fatal("at index", f"id = {id if isinstance(id, str) else repr(id)}", "64-bit integer")

    @pytest.mark.parametrize(
        ("kind", "text"),
        [("images", "image 11"), ("annotations", "annotation 1"), ("categories", "category 90")],
    )
    def test_repeated_id(self, file, kind, text):
        file.content[kind].append(file.content[kind][0] | {"name": "another"})
        file.fatal(text, "has this id")

    def test_entry_that_is_no_object(self, file):
        file.annotations.append("box")
        file.fatal("annotation at index 2", "'box'")

    def test_repeated_class_name(self, file):
        file.categories.append({"id": 100, "name": "cat"})
        file.fatal("category 100: name = cat: another category has this name")

    @pytest.mark.parametrize("name", ["", None, 7])
    def test_class_without_name(self, file, name):
        file.categories[2]["name"] = name
        file.fatal("category 7: name")

    def test_image_without_name(self, file):
        del file.images[0]["file_name"]
        file.fatal("image 11: file_name = missing")

    @pytest.mark.parametrize("width", [0, -60, 60.5, "60", float("nan"), float("inf"), True])
    def test_bad_size(self, file, width):
        file.images[0]["width"] = width
        file.fatal("image 11", "width = ")

    def test_unknown_image(self, file):
        file.annotations[0]["image_id"] = 13
        file.fatal("annotation 1: image_id = 13: no image has this id")

    def test_unknown_category(self, file):
        file.annotations[0]["category_id"] = 4
        file.fatal("annotation 1: category_id = 4: no category has this id")

    def test_missing_category(self, file):
        del file.annotations[0]["category_id"]
        file.fatal("annotation 1: category_id = missing")

    def test_missing_box(self, file):
        del file.annotations[1]["bbox"]
        file.fatal("annotation 2: bbox = missing")

    @pytest.mark.parametrize(
        ("bbox", "message"),
        [
            ([1, 2, -3, 4], "negative"),
            ([1, 2, 3, -4], "negative"),
            ([1, 2, 3], "four numbers"),
            ([1, 2, 3, 4, 5], "four numbers"),
            ([1, 2, 3, "4"], "four numbers"),
            ([1, 2, 3, None], "four numbers"),
            ("1 2 3 4", "four numbers"),
            ([1, 2, float("nan"), 4], "not finite"),
            ([1, float("inf"), 3, 4], "not finite"),
            ([1, 2, 10**400, 4], "not finite"),
        ],
    )
    def test_bad_box(self, file, bbox, message):
        file.annotations[0]["bbox"] = bbox
        file.fatal("annotation 1: bbox = ", message)

    def test_bad_crowd_flag(self, file):
        file.annotations[0]["iscrowd"] = 2
        file.fatal("annotation 1: iscrowd = 2")

    def test_missing_image(self, file):
        (file.folder / "b.png").unlink()
        file.fatal("image 12", "b.png", "no such file")

    def test_a_long_path_is_told_whole(self, file):
        file.images[1]["file_name"] = f"{'folder/' * 30}b.png"
        file.fatal(f"{'folder/' * 30}b.png: no such file")

    def test_unreadable_image(self, file):
        (file.folder / "b.png").write_text("text")
        file.fatal("image 12", "b.png", "is not an image")

    def test_image_that_is_cut_off(self, file):
        content = (file.folder / "b.png").read_bytes()
        (file.folder / "b.png").write_bytes(content[:-40])
        file.fatal("image 12", "b.png", "cannot be decoded")

    def test_size_of_another_image(self, file):
        file.images[0]["width"] = 61
        file.fatal("image 11: size = 61x40", "a.png is 60x40")

    def test_size_exchanged_without_exif(self, file):
        file.images[0].update(width=40, height=60)
        file.fatal("size = 40x60")

    def test_everything_is_listed(self, file):
        file.annotations[0]["image_id"] = 13
        file.annotations[1]["bbox"] = [1, 2, -1, 3]
        file.categories.append({"id": 100, "name": "cat"})
        (file.folder / "b.png").unlink()
        path = file.write()
        with pytest.raises(DatasetError, match="3 problems") as error:
            load_coco(path)  # does not open the images of a file that is wrong
        found = check_coco(path)
        assert set(error.value.problems) < set(found)
        assert [p.id for p in found if p.fatal] == [
            "category 100", "annotation 1", "annotation 2", "image 12",
        ]  # fmt: skip


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
