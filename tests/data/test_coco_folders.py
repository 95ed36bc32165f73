"""Where a COCO file's images are found, and which file a name in it means."""

import json
import unicodedata
import warnings

import pytest
from PIL import Image

from rcnn_keras.data import DatasetError, check_coco, load_coco


def image(path, size=(60, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)


def coco(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"id": i, "file_name": name, "width": 60, "height": 40}
        for i, name in enumerate(names, start=1)
    ]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20]}
    categories = [{"id": 1, "name": "owl"}]
    content = {"images": images, "annotations": [annotation], "categories": categories}
    path.write_text(json.dumps(content))
    return path


def paths(dataset, folder):
    return [record.path.removeprefix(f"{folder}/") for record in dataset]


def fatal(path, *texts, **options):
    """Load a file that has one fatal problem, which says these texts."""
    with pytest.raises(DatasetError, match="1 problem in") as error:
        load_coco(path, **options)
    for text in texts:
        assert text in str(error.value)
    assert [p for p in check_coco(path, **options) if p.fatal] == list(error.value.problems)
    return str(error.value)


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class TestNames:
    @pytest.mark.parametrize(
        ("stated", "on_disk"),
        [
            ("images\\a.png", "images/a.png"),
            ("C:\\Users\\Ann\\owls\\a.png", "a.png"),
            ("C:/owls/images/a.png", "images/a.png"),
            ("/home/ann/owls/images/a.png", "images/a.png"),
            ("..\\data\\a.png", "a.png"),
            ("file:///home/ann/a.png", "a.png"),
            ("a.png", "deep/down/a.png"),
            ("a.PNG", "a.png"),
            ("Images/A.png", "images/a.PNG"),
            ("a%20b.png", "a b.png"),
            ("a b.png", "a%20b.png"),
            ("a.jpeg", "a.jpg"),
            ("a.tif", "a.TIFF"),
            (" a.png", "a.png"),
            (unicodedata.normalize("NFC", "Käuze/é.png"), unicodedata.normalize("NFD", "é.png")),
            (unicodedata.normalize("NFD", "é.png"), unicodedata.normalize("NFC", "É.PNG")),
        ],
    )
    def test_the_only_file_that_fits_is_taken_and_counted(self, tmp_path, stated, on_disk):
        image(tmp_path / on_disk)
        image(tmp_path / "z.png")
        with pytest.warns(UserWarning, match="1 file name spelled as on disk") as caught:
            dataset = load_coco(coco(tmp_path / "x.json", stated, "z.png"), tmp_path)
        assert len(caught) == 1
        assert paths(dataset, tmp_path) == [on_disk, "z.png"]
        (problem,) = dataset.problems
        assert problem.id == "image 1"
        assert problem.value == f"{stated} -> {on_disk}"

    def test_a_name_as_it_is_on_disk_needs_no_repair(self, tmp_path):
        image(tmp_path / "a.png")
        image(tmp_path / "A.png")
        image(tmp_path / "sub" / "a.png")
        assert paths(load_coco(coco(tmp_path / "x.json", "./a.png", "A.png")), tmp_path) == [
            "./a.png",
            "A.png",
        ]

    def test_several_files_that_fit_are_named(self, tmp_path):
        for name in ("train/a.png", "val/a.png", "b.png"):
            image(tmp_path / name)
        fatal(coco(tmp_path / "x.json", "a.png", "b.png"), "image 1", "several files fit")

    def test_letter_case_that_tells_two_files_apart_is_not_guessed(self, tmp_path):
        for name in ("a.png", "A.png", "b.png"):
            image(tmp_path / name)
        text = fatal(coco(tmp_path / "x.json", "a.PNG", "b.png"))
        assert "several files fit: A.png, a.png" in text

    def test_the_more_folders_in_common_the_better(self, tmp_path):
        for name in ("a.png", "val/a.png"):
            image(tmp_path / name)
        with pytest.warns(UserWarning, match="1 file name"):
            dataset = load_coco(coco(tmp_path / "x.json", "D:\\owls\\val\\a.png"), tmp_path)
        assert paths(dataset, tmp_path) == ["val/a.png"]

    def test_a_file_of_nearly_that_name_is_named(self, tmp_path):
        image(tmp_path / "owl_0001 (1).png")
        image(tmp_path / "b.png")
        path = coco(tmp_path / "x.json", "owl_0001.png", "b.png")
        fatal(path, "no such file; of nearly this name: owl_0001 (1).png")

    def test_a_file_of_that_name_in_another_folder_is_named_and_not_taken(self, tmp_path):
        image(tmp_path / "val/a.png")
        image(tmp_path / "b.png")
        path = coco(tmp_path / "x.json", "train/a.png", "b.png")
        fatal(path, "of this name, but in another folder: val/a.png")

    def test_images_of_another_split_are_not_taken(self, tmp_path):
        image(tmp_path / "val/a.png")
        image(tmp_path / "val/b.png")
        path = coco(tmp_path / "x.json", "train/a.png", "train/b.png")
        fatal(path, "none of the 2 images", images=tmp_path / "val")

    def test_one_file_is_not_taken_for_two_names(self, tmp_path):
        image(tmp_path / "a.png")
        path = coco(tmp_path / "x.json", "left/a.png", "right/a.png")
        with pytest.raises(DatasetError, match=r"several names fit .*a\.png alone: left/a"):
            load_coco(path)


class TestFolders:
    @pytest.mark.parametrize(
        ("file", "folder"),
        [
            ("annotations/x.json", "images"),
            ("annotations/instances_train2017.json", "train2017"),
            ("annotations/instances_train.json", "images/train"),
            ("annotations/x.json", "."),
            ("x.json", "JPEGImages"),
            ("train/_annotations.coco.json", "train"),
            ("labels/x.json", "photos"),
        ],
    )
    def test_the_only_folder_that_has_the_images_is_found(self, tmp_path, file, folder):
        for name in ("a.png", "b.png"):
            image(tmp_path / folder / name)
        (tmp_path / "empty").mkdir()
        path = coco(tmp_path / file, "a.png", "b.png")
        dataset = load_coco(path)
        assert [r.path.rsplit("/")[-1] for r in dataset] == ["a.png", "b.png"]
        assert check_coco(path) == []

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_of_the_same_names_in_two_folders_that_of_the_split_is_taken(self, tmp_path, split):
        for folder in ("train2017", "val2017"):
            image(tmp_path / folder / "a.png")
        (record,) = load_coco(coco(tmp_path / f"annotations/instances_{split}2017.json", "a.png"))
        assert f"/{split}2017/" in record.path.replace("annotations/../", "")

    def test_the_images_of_another_split_are_not_taken(self, tmp_path):
        image(tmp_path / "val2017" / "a.png")
        image(tmp_path / "val2017" / "b.png")
        fatal(
            coco(tmp_path / "annotations/instances_train2017.json", "a.png", "b.png"),
            "none of the 2 images is in this folder",
        )

    def test_two_folders_that_fit_alike_are_named(self, tmp_path):
        for folder in ("left", "right"):
            image(tmp_path / folder / "a.png")
        fatal(coco(tmp_path / "annotations/x.json", "a.png"), "left, ", "right", "images=")

    def test_all_images_missing_is_one_line_that_says_where_they_are(self, tmp_path):
        for name in "abc":
            image(tmp_path / "photos" / f"{name}.png")
            image(tmp_path / "others" / f"{name}{name}.png")
        path = coco(tmp_path / "x.json", "a.png", "b.png", "c.png")
        text = fatal(path, "none of the 3 images", "aa.png", images=tmp_path / "others")
        assert text.endswith(f"they are in {tmp_path}/photos: name it with images=")
        text = fatal(path, "no such folder", images=tmp_path / "nowhere")
        assert text.endswith(f"they are in {tmp_path}/photos: name it with images=")

    def test_all_images_missing_everywhere(self, tmp_path):
        fatal(coco(tmp_path / "x.json", "a.png", "b.png"), "none of the 2", "it has no image")

    def test_a_folder_with_one_file_stands_for_it(self, tmp_path):
        image(tmp_path / "train" / "a.png")
        coco(tmp_path / "train/_annotations.coco.json", "a.png")
        assert len(load_coco(tmp_path / "train")) == 1
        assert len(load_coco(tmp_path)) == 1
        coco(tmp_path / "valid/_annotations.coco.json", "a.png")
        fatal(tmp_path, "name one COCO JSON file", "train/_annotations", "valid/_annotations")
        fatal(tmp_path / "nothing_here_is_a_file", "cannot be read")


def test_a_name_without_its_ending_is_found_if_one_image_alone_fits(tmp_path):
    image(tmp_path / "0001.jpg")
    image(tmp_path / "b.1.png")
    path = coco(tmp_path / "data.json", "0001", "b.1")
    with pytest.warns(UserWarning, match="2 file names spelled as on disk"):
        assert paths(load_coco(path), tmp_path) == ["0001.jpg", "b.1.png"]
    fatal(coco(tmp_path / "data.json", "0002", "b.1.png"), "of nearly this name: 0001.jpg")
    image(tmp_path / "0001.png")
    path = coco(tmp_path / "data.json", "0001", "b.1.png")
    fatal(path, "0001: no such file; several files fit: 0001.jpg, 0001.png")
