"""Pascal VOC datasets as tools other than the devkit lay them out and encode them."""

import re
import unicodedata
import warnings

import pytest
from PIL import Image

from rcnn_keras.data import DatasetError, check_voc, load_voc
from rcnn_keras.data.voc_folders import voc_splits

OBJECT = (
    "<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>1</xmin>"
    "<ymin>2</ymin><xmax>30</xmax><ymax>20</ymax></bndbox></object>"
)


def xml(path, name="owl", difficult="0", filename="", encoding="utf-8", declared=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    declaration = f'<?xml version="1.0" encoding="{declared}"?>' if declared else ""
    item = OBJECT.format(name=name, difficult=difficult)
    size = "<size><width>60</width><height>40</height></size>"
    text = f"{declaration}<annotation><filename>{filename}</filename>{size}{item}</annotation>"
    path.write_bytes(text.encode(encoding))


def image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40), "red").save(path)


def text(path, content, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))


def stems(root, split=None):
    return [re.split(r"[/.]", record.path)[-2] for record in load_voc(root, split)]


def fatal(root, *texts, split=None):
    with pytest.raises(DatasetError) as error:
        load_voc(root, split)
    for text in texts:
        assert text in str(error.value)
    assert check_voc(root, split)
    return str(error.value)


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


class TestFolders:
    @pytest.mark.parametrize(
        ("annotations", "images"),
        [
            ("annots", "images"),
            ("annotations", "images"),
            ("ANNOTATIONS", "JpegImages"),
            ("labels", "img"),
            ("xmls", "."),
            (".", "."),
            (".", "pictures"),
            ("boxes", "pictures"),
            ("all", "all"),
            ("VOCdevkit/VOC2007/Annotations", "VOCdevkit/VOC2007/JPEGImages"),
            ("VOC2012/annots", "VOC2012/images"),
        ],
    )
    def test_folders_of_other_names(self, tmp_path, annotations, images):
        for name in "ab":
            xml(tmp_path / annotations / f"{name}.xml")
            image(tmp_path / images / f"{name}.jpg")
        assert stems(tmp_path) == ["a", "b"]
        assert check_voc(tmp_path) == []
        assert voc_splits(str(tmp_path)) == [None]

    @pytest.mark.parametrize(
        ("annotations", "images"),
        [
            ("{}", "{}"),
            ("{}/annotations", "{}/images"),
            ("annotations/{}", "images/{}"),
            ("Annotations/{}", "JPEGImages"),
        ],
    )
    def test_a_folder_for_each_split(self, tmp_path, annotations, images):
        for name, split in (("a", "train"), ("b", "valid"), ("c", "test")):
            xml(tmp_path / annotations.format(split) / f"{name}.xml", name)
            image(tmp_path / images.format(split) / f"{name}.jpg")
        assert stems(tmp_path) == stems(tmp_path, "train") == ["a"]
        assert stems(tmp_path, "val") == stems(tmp_path, "valid") == ["b"]
        assert stems(tmp_path, "test") == ["c"]
        fatal(tmp_path, split="trainval")
        assert voc_splits(str(tmp_path)) == ["train", "val", "test"]
        if annotations != "annotations/{}" and annotations != "Annotations/{}":
            assert stems(tmp_path / "valid") == stems(tmp_path / "valid", "val") == ["b"]
            fatal(tmp_path / "valid", "of val", split="train")

    def test_xml_and_images_in_sub_folders_and_upper_case(self, tmp_path):
        for name in ("left/a", "right/a", "b"):
            xml(tmp_path / "Annotations" / f"{name}.XML")
            image(tmp_path / "JPEGImages" / f"{name}.JPG")
        paths = [record.path for record in load_voc(tmp_path)]
        assert paths == [f"{tmp_path}/JPEGImages/{name}.JPG" for name in ("b", "left/a", "right/a")]
        text(tmp_path / "ImageSets/Main/train.txt", "right/a\nb")
        assert [r.path[-11:-4] for r in load_voc(tmp_path)] == ["right/a", "mages/b"]
        text(tmp_path / "ImageSets/Main/train.txt", "a\nb")
        fatal(tmp_path, "several files fit: left/a.XML, right/a.XML")

    def test_system_files_and_masks_are_left_alone(self, tmp_path):
        xml(tmp_path / "Annotations/a.xml")
        image(tmp_path / "JPEGImages/a.jpg")
        image(tmp_path / "SegmentationClass/a.png")
        text(tmp_path / "Annotations/._a.xml", "\0\5\26\7")
        text(tmp_path / "Annotations/.DS_Store", "")
        text(tmp_path / "JPEGImages/._a.jpg", "\0\5\26\7")
        text(tmp_path / "__MACOSX/Annotations/a.xml", "")
        assert stems(tmp_path) == ["a"]

    def test_masks_beside_the_images(self, tmp_path):
        xml(tmp_path / "a.xml", filename="a.jpg")
        for ending in ("jpg", "png"):
            image(tmp_path / f"a.{ending}")
        assert load_voc(tmp_path)[0].path.endswith("a.jpg")
        xml(tmp_path / "a.xml")
        fatal(tmp_path, "several files fit: a.jpg, a.png")

    def test_several_data_sets_are_named(self, tmp_path):
        for year in ("VOC2007", "VOC2012"):
            xml(tmp_path / f"VOCdevkit/{year}/Annotations/a.xml")
        fatal(tmp_path, "name one", "VOCdevkit/VOC2007", "VOCdevkit/VOC2012")

    def test_a_folder_without_xml_says_what_there_is(self, tmp_path):
        text(tmp_path / "labels/a.txt", "0 0.5 0.5 1 1")
        text(tmp_path / "notes.txt", "")
        fatal(tmp_path, "there is no XML file in this folder; there is: labels, notes.txt")


class TestLists:
    @pytest.fixture
    def root(self, tmp_path):
        for name in ("a", "b", "my photo", "käuze"):
            xml(tmp_path / "Annotations" / f"{name}.xml")
            image(tmp_path / "JPEGImages" / f"{name}.jpg")
        return tmp_path

    def test_a_split_without_a_list_is_refused(self, root):
        fatal(root, "ImageSets/Main/val.txt", "split = val", "no such list", "4 XML", split="val")
        with pytest.warns(UserWarning, match="1 no lists of splits, all images read"):
            assert len(load_voc(root, "train")) == 4
        assert len(load_voc(root)) == 4

    @pytest.mark.parametrize(
        "content",
        [
            "a.jpg\nmy photo.jpg\n",
            "a.xml\nmy photo.xml\n",
            "a  1\nmy photo -1\n",
            "a.jpg 1\nmy photo.jpg  0\n",
            "JPEGImages/a.jpg\nJPEGImages/my photo.jpg",
            "./a\r\n./my photo\r\n",
            "C:\\owls\\a.jpg\r\nC:\\owls\\my photo.jpg\r\n",
            "images/a.jpg Annotations/a.xml\nimages/my%20photo.jpg Annotations/my%20photo.xml",
        ],
    )
    def test_names_as_other_tools_write_them(self, root, content):
        text(root / "ImageSets/Main/train.txt", content)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "pets|.*spelled as on disk")
            assert stems(root, "train") == stems(root) == ["a", "my photo"]

    def test_names_in_another_case_or_form_are_counted(self, root):
        text(root / "ImageSets/Main/train.txt", unicodedata.normalize("NFD", "A\nkäuze\n"))
        with pytest.warns(UserWarning, match="2 file names spelled as on disk"):
            assert len(load_voc(root)) == 2

    @pytest.mark.parametrize(
        "encoding",
        ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"],
    )
    def test_other_encodings(self, root, encoding):
        text(root / "ImageSets/Main/train.txt", "a\r\nkäuze\r\n", encoding)
        assert stems(root) == ["a", "käuze"]

    @pytest.mark.parametrize(
        "place", ["ImageSets/train.txt", "imagesets/main/Train.TXT", "train.txt"]
    )
    def test_lists_are_found_in_other_folders(self, root, place):
        text(root / place, "b")
        assert stems(root) == stems(root, "train") == ["b"]
        fatal(root, "val.txt", "no such list of images; there are: ", split="val")

    def test_the_list_of_validation_under_another_name(self, root):
        text(root / "ImageSets/Main/valid.txt", "b")
        text(root / "ImageSets/Main/train.txt", "a")
        assert stems(root, "val") == ["b"]
        assert voc_splits(str(root)) == ["train", "val"]

    def test_the_only_list_is_read_where_none_is_named(self, root):
        text(root / "ImageSets/Main/default.txt", "b")
        assert stems(root) == ["b"]
        fatal(root, "there are: default", split="train")

    def test_names_that_are_not_there(self, root):
        text(root / "ImageSets/Main/train.txt", "a\nmy foto\n")
        fatal(root, "my foto.xml: cannot be read: No such file; of nearly this name: my photo.xml")
        text(root / "ImageSets/Main/train.txt", "x\ny\nz\n")
        assert fatal(root, "none of the 3 images listed has an XML file").startswith("1 problem")


class TestXML:
    @pytest.mark.parametrize(
        ("encoding", "declared", "repaired"),
        [
            ("utf-8-sig", "utf-8", False),
            ("utf-16", "utf-16", False),
            ("latin-1", "iso-8859-1", False),
            ("cp1252", "windows-1252", False),
            ("utf-8", "utf-16", True),
            ("latin-1", "utf-8", True),
            ("cp1252", "", True),
            ("gbk", "gb2312", True),
        ],
    )
    def test_other_encodings_are_read_and_reported(self, tmp_path, encoding, declared, repaired):
        name = "猫" if encoding == "gbk" else "Käuzchen"
        xml(tmp_path / "a.xml", name, encoding=encoding, declared=declared)
        image(tmp_path / "a.jpg")
        if repaired:
            with pytest.warns(UserWarning, match="1 encoding not as declared"):
                dataset = load_voc(tmp_path)
        else:
            dataset = load_voc(tmp_path)
        assert dataset.classes == (name,)

    @pytest.mark.parametrize(
        ("value", "difficult"),
        [
            ("1", True), ("true", True), ("True", True), ("yes", True), (" Y ", True),
            ("1.0", True),
            ("0", False), ("false", False), ("No", False), ("", False), ("Unspecified", False),
        ],
    )  # fmt: skip
    def test_spellings_of_true(self, tmp_path, value, difficult):
        xml(tmp_path / "a.xml", difficult=value)
        image(tmp_path / "a.jpg")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(?s).*difficult = 1 in all 1 objects")
            dataset = load_voc(tmp_path)
        assert dataset[0].crowd.tolist() == [difficult]

    @pytest.mark.parametrize("value", ["maybe", "2", "-1"])
    def test_what_is_neither_true_nor_false_is_refused(self, tmp_path, value):
        xml(tmp_path / "a.xml", difficult=value)
        image(tmp_path / "a.jpg")
        fatal(tmp_path, f"object 0: difficult = {value}: is neither 0 nor 1")

    def test_the_image_is_found_by_the_name_in_the_file_as_windows_writes_it(self, tmp_path):
        xml(tmp_path / "annots/1.xml", filename="C:\\owls\\Photo 1.JPG")
        xml(tmp_path / "annots/2.xml", filename="2.jpg")
        image(tmp_path / "images/photo 1.jpg")
        image(tmp_path / "images/2.jpg")
        with pytest.warns(UserWarning, match="1 file name spelled as on disk"):
            assert stems(tmp_path) == ["photo 1", "2"]


def test_class_names_that_look_alike_are_one_class(tmp_path):
    for stem, name in (("a", " red cell "), ("b", "red  cell"), ("c", "red\u00a0cell")):
        xml(tmp_path / f"{stem}.xml", name)
        image(tmp_path / f"{stem}.png")
    with pytest.warns(UserWarning, match="2 class names spelled with other spaces"):
        dataset = load_voc(tmp_path)
    assert dataset.classes == ("red cell",)
    assert [len(record) for record in dataset] == [1, 1, 1]


def test_class_names_that_differ_in_letter_case_are_suspicious(tmp_path):
    for stem, name in (("a", "Cell"), ("b", "cell")):
        xml(tmp_path / f"{stem}.xml", name)
        image(tmp_path / f"{stem}.png")
    with pytest.warns(UserWarning, match='classes = "Cell", "cell": .* letter case alone'):
        assert load_voc(tmp_path).classes == ("Cell", "cell")
