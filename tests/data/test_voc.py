import json
import warnings

import numpy as np
import pytest
from PIL import Image

from rcnn_keras.data import DatasetError, Record, check_voc, load_coco, load_voc


def object_xml(name, corners, difficult=0):
    tags = "".join(
        f"<{tag}>{value}</{tag}>"
        for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    return (
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox>{tags}</bndbox></object>"
    )


class Folder:
    """A VOC folder with images a and b (40x60 pixels) in `train` and c in `val`, to be spoilt."""

    SIZE = "<size><width>60</width><height>40</height><depth>3</depth></size>"

    def __init__(self, root):
        self.root = root
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / name).mkdir(parents=True)
        self.split("train", "a\nb\n")
        self.split("val", "c\n")
        self.xml("a", object_xml("owl", (1, 2, 11, 22)) + object_xml("cat", (3, 4, 9.5, 8), 1))
        self.xml("b", "")
        self.xml("c", object_xml("dog", (5, 6, 7, 8)))
        for name in "abc":
            Image.new("RGB", (60, 40), "blue").save(root / "JPEGImages" / f"{name}.jpg")

    def split(self, name, text):
        (self.root / "ImageSets/Main" / f"{name}.txt").write_text(text)

    def xml(self, name, objects, size=SIZE, filename=None):
        text = f"<filename>{filename or name + '.jpg'}</filename>{size}{objects}"
        (self.root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")

    def repaired(self, **options):
        with pytest.warns(UserWarning) as caught:  # noqa: PT030, the callers look at the text
            dataset = load_voc(self.root, **options)
        assert len(caught) == 1
        assert caught[0].filename == __file__
        assert check_voc(self.root, **options) == list(dataset.problems)
        return dataset, str(caught[0].message)

    def fatal(self, *texts):
        with pytest.raises(DatasetError, match="1 problem in") as error:
            load_voc(self.root)
        for text in texts:
            assert text in str(error.value)
        (problem,) = (p for p in check_voc(self.root) if p.fatal)
        assert problem in error.value.problems


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "pets")


@pytest.fixture(autouse=True)
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_reads_what_the_files_say(folder):
    dataset = load_voc(folder.root)
    assert dataset.classes == ("cat", "dog", "owl")  # dog stands in another split only
    assert dataset.name == "pets train"
    first, second = dataset
    assert (first.image_id, second.image_id) == (1, 2)
    assert first.path == str(folder.root / "JPEGImages/a.jpg")
    assert (first.height, first.width) == (40, 60)
    assert first.boxes.tolist() == [[1, 2, 11, 22], [3, 4, 9.5, 8]]
    assert first.labels.tolist() == [2, 0]
    assert first.crowd.tolist() == first.difficult.tolist() == [False, True]
    assert len(second) == 0
    assert second.difficult is None
    assert load_voc(str(folder.root), "val")[0].labels.tolist() == [1]
    assert check_voc(folder.root) == []


def test_difficult_objects_stay_known_in_a_coco_file(folder, tmp_path):
    load_voc(folder.root).with_classes(["cat", "owl"]).save_coco(tmp_path / "a.json")
    assert load_coco(tmp_path / "a.json")[0].difficult.tolist() == [False, True]
    annotations = json.loads((tmp_path / "a.json").read_text())["annotations"]
    assert [(a["iscrowd"], a.get("difficult")) for a in annotations] == [(0, None), (1, 1)]


def test_a_difficult_object_that_is_not_left_out_is_an_error():
    with pytest.raises(
        ValueError, match=r"a\.png: a difficult object must be among those of crowd"
    ):
        Record(1, "a.png", 9, 9, [[0, 0, 3, 3]], [0], [False], difficult=[True])


def test_split_lists_with_presence_and_spaces(folder):
    folder.split("owl_train", "a  1\nb -1\n\n")
    assert len(load_voc(folder.root, "owl_train")) == 2
    for kind, ending in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        (folder.root / kind / f"b.{ending}").rename(folder.root / kind / f"my photo 2.{ending}")
    folder.split("train", "a\nmy photo 2\n")
    assert load_voc(folder.root)[1].path.endswith("my photo 2.jpg")


@pytest.mark.parametrize("annotations", ["Annotations", "."])
def test_folder_without_lists(tmp_path, annotations):
    (tmp_path / annotations).mkdir(exist_ok=True)
    for name in "ab":
        Image.new("RGB", (60, 40)).save(tmp_path / f"{name}.png")
        text = f"<annotation>{object_xml('cat', (1, 2, 3, 4))}{Folder.SIZE}</annotation>"
        (tmp_path / annotations / f"{name}.xml").write_text(text)
    dataset = load_voc(tmp_path)
    assert [r.path for r in dataset] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]


def test_image_of_the_same_stem_comes_first(folder):
    folder.xml("b", "", filename="a.jpg")  # a slip of the annotator
    assert load_voc(folder.root)[1].path.endswith("b.jpg")
    (folder.root / "JPEGImages/b.jpg").rename(folder.root / "JPEGImages/photo.jpg")
    folder.xml("b", "", filename="photo.jpg")
    assert load_voc(folder.root)[1].path.endswith("photo.jpg")
    Image.new("RGB", (60, 40)).save(folder.root / "JPEGImages/b.PNG")
    assert load_voc(folder.root)[1].path.endswith("b.PNG")


def test_given_classes_fix_their_order_and_drop_others(folder):
    dataset = load_voc(folder.root, classes=["owl", "dog", "cat"])
    assert dataset.classes == ("owl", "dog", "cat")
    assert dataset[0].labels.tolist() == [0, 2]
    dataset, warning = folder.repaired(classes=["owl"])
    assert "1 object of a class not asked for dropped" in warning
    assert dataset.problems[0].value == "cat"
    assert [len(r) for r in dataset] == [1, 0]
    dataset = load_voc(folder.root, classes=["owl", "cat", "yak"])  # a class without an object
    assert dataset.classes == ("owl", "cat", "yak")
    assert dataset[0].labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="repeated"):
        load_voc(folder.root, classes=["cat", "cat"])


class TestMended:
    def test_box_over_the_border(self, folder):
        folder.xml("b", object_xml("cat", (-4, 30, 61, 44)))
        dataset, warning = folder.repaired()
        assert "pets train: 1 box clipped to its image (" in warning
        assert dataset[1].boxes.tolist() == [[0, 30, 60, 40]]
        (problem,) = dataset.problems
        assert problem.file == str(folder.root / "Annotations/b.xml")
        assert problem.id == "object 0"

    def test_no_area_or_outside(self, folder):
        boxes = [(3, 4, 3, 9), (1, 1, 2, 2), (70, 4, 80, 9)]
        folder.xml("b", "".join(object_xml("cat", box) for box in boxes))
        dataset, warning = folder.repaired()
        assert "1 box without area dropped, 1 box outside its image dropped" in warning
        assert dataset[1].boxes.tolist() == [[1, 1, 2, 2]]

    @pytest.mark.parametrize(
        "size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"]
    )
    def test_a_missing_size_is_taken_from_the_image(self, folder, size):
        folder.xml("a", object_xml("owl", (1, 2, 11, 22)), size=size)
        dataset, warning = folder.repaired()
        assert "1 size missing, taken from the image" in warning
        assert (dataset[0].height, dataset[0].width) == (40, 60)

    def test_image_listed_twice(self, folder):
        folder.split("train", "a\nb\na\n")
        dataset, warning = folder.repaired()
        assert "1 image listed twice" in warning
        assert len(dataset) == 2

    def test_no_object_at_all(self, folder):
        folder.split("train", "b")
        dataset, warning = folder.repaired()
        assert "1 dataset without any object (" in warning
        assert dataset.max_objects == 1


class TestFatal:
    def test_a_missing_folder_is_named(self, tmp_path):
        with pytest.raises(DatasetError, match="no such folder"):
            load_voc(tmp_path / "nowhere")

    def test_a_folder_without_annotations_is_refused(self, tmp_path):
        with pytest.raises(DatasetError, match="no XML file"):
            load_voc(tmp_path)
        with pytest.raises(DatasetError, match="no XML file"):
            load_voc(tmp_path, classes=["cat"])

    def test_an_unknown_split_is_refused_with_the_known_ones(self, folder):
        with pytest.raises(DatasetError, match=r"split = trian: .* there are: train, val"):
            load_voc(folder.root, "trian")

    def test_an_empty_split_is_refused(self, folder):
        folder.split("train", "\n")
        folder.fatal("train.txt: there is no image in this list")

    def test_a_missing_xml_file_is_named(self, folder):
        (folder.root / "Annotations/b.xml").unlink()
        folder.fatal("b.xml: cannot be read: No such file")

    def test_a_broken_xml_file_is_named(self, folder):
        (folder.root / "Annotations/b.xml").write_text("<annotation>\n<object></annotation>")
        folder.fatal("b.xml: is not XML: mismatched tag: line 2")

    def test_xml_of_another_kind(self, folder):
        (folder.root / "Annotations/b.xml").write_text("<html/>")
        folder.fatal("b.xml: is <html>, not a VOC <annotation>")

    def test_a_missing_image_is_refused(self, folder):
        (folder.root / "JPEGImages/b.jpg").unlink()
        folder.fatal("b.xml", "b.jpg: no such file")

    def test_unreadable_image(self, folder):
        (folder.root / "JPEGImages/b.jpg").write_bytes(b"")
        folder.fatal("b.xml", "b.jpg: the file is empty")

    def test_an_object_without_a_box_is_refused(self, folder):
        folder.xml("b", "<object><name>cat</name></object>")
        folder.fatal("b.xml: object 0: bndbox = missing")

    def test_an_object_without_a_name_is_refused(self, folder):
        folder.xml("b", object_xml("cat", (1, 2, 3, 4)) + object_xml(" ", (1, 2, 3, 4)))
        folder.fatal("b.xml: object 1: name = missing")

    @pytest.mark.parametrize(
        ("corners", "texts"),
        [
            ((9, 2, 3, 4), ["bndbox = 9, 2, 3, 4", "xmin is greater than xmax"]),
            ((1, 7, 3, 4), ["ymin is greater than ymax"]),
            (("one", 2, 3, 4), ["xmin = one", "not a finite number"]),
            ((1, 2, "nan", 4), ["xmax = nan", "not a finite number"]),
            ((1, 2, 3, "inf"), ["ymax = inf", "not a finite number"]),
            ((1, "", 3, 4), ["ymin", "not a finite number"]),
        ],
    )
    def test_impossible_corners_are_named(self, folder, corners, texts):
        folder.xml("b", object_xml("cat", corners))
        folder.fatal("b.xml: object 0", *texts)

    def test_a_box_without_a_corner_is_refused(self, folder):
        folder.xml("b", object_xml("cat", (1, 2, 3, 4)).replace("<xmax>3</xmax>", ""))
        folder.fatal("b.xml: object 0: xmax = missing")

    def test_size_of_another_image(self, folder):
        folder.xml("b", "", size=Folder.SIZE.replace("40", "44"))
        folder.fatal("b.xml", "size = 60x44", "b.jpg is 60x40")

    def test_a_size_that_is_not_positive_is_named(self, folder):
        folder.xml("b", "", size=Folder.SIZE.replace("60", "wide"))
        folder.fatal("b.xml: size: width = wide")


def test_agrees_with_the_coco_copy(shared_data):
    """bccd is bccd_voc in COCO JSON, less the two boxes without area."""
    dropped = 0
    for split in ("train", "val", "test"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            voc = load_voc(shared_data / "bccd_voc", split, classes=["RBC", "WBC", "Platelets"])
        coco = load_coco(shared_data / f"bccd/{split}.json")
        assert voc.classes == coco.classes
        dropped += len(voc.problems)
        by_name = {r.path.rsplit("/", 1)[-1]: r for r in coco}
        assert len(voc) == len(coco) == len(by_name)
        for r in voc:
            other = by_name[r.path.rsplit("/", 1)[-1]]
            np.testing.assert_array_equal(r.boxes, other.boxes)
            np.testing.assert_array_equal(r.labels, other.labels)
    assert dropped == 2


def test_repaired_boxes_of_real_data(shared_data):
    with pytest.warns(UserWarning, match="2 boxes without area dropped"):
        dataset = load_voc(shared_data / "bccd_voc", "trainval")
    assert {p.message for p in dataset.problems} == {"box without area dropped"}
