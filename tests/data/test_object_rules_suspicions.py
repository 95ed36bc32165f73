"""Ground truth that is read as it stands, and reported because it is probably not meant."""

import warnings

import pytest
from PIL import Image

from rcnn_keras.data import (
    DatasetError,
    check_coco,
    check_tfrecord,
    load_coco,
    load_tfrecord,
    load_voc,
)

BOXES = [[1, 2, 10, 20], [20, 5, 30, 30], [3, 3, 40, 30], [10, 10, 12, 14]]
SQUARE = [[5, 5, 20, 5, 20, 20, 5, 20]]


@pytest.fixture
def four(file):
    """The file with two ordinary objects of each of two classes."""
    file.annotations[:] = [
        file.annotation(i, 11 + i % 2, (90, 3)[i // 2], box) for i, box in enumerate(BOXES)
    ]
    return file


def suspicions(file, count=1, **options):
    """Load and check the file; return the text of its suspicions, of which there are `count`."""
    dataset, warning = file.repaired(**options)
    found = [problem for problem in dataset.problems if problem.suspicious]
    assert len(found) == count
    assert not any(problem.fatal for problem in found)
    assert check_coco(file.write(), **options) == list(dataset.problems)
    for problem in found:
        assert str(problem) in warning
    return warning


def silent(file, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_coco(file.write(), **options)


class TestCrowd:
    def test_sound_data_is_not_suspicious(self, four):
        four.annotations[0]["iscrowd"] = 1
        assert silent(four).problems == ()

    def test_crowd_on_all_objects_is_reported(self, four):
        for annotation in four.annotations:
            annotation["iscrowd"] = 1
        warning = suspicions(four)
        assert "data.json: iscrowd = 1 in all 4 objects: training leaves" in warning
        assert "nothing is learned" in warning
        assert 'crowd="objects" reads them as ordinary objects' in warning
        dataset, warning = four.repaired(crowd="objects")
        assert warning.startswith("data: 4 crowd regions read as ordinary objects")
        assert "\n" not in warning
        assert not any(record.crowd.any() for record in dataset)

    def test_crowd_on_more_than_half_of_the_objects_is_reported(self, four):
        for annotation in four.annotations[:3]:
            annotation["iscrowd"] = 1
        warning = suspicions(four, 2)  # the second says that all of one class are
        assert "iscrowd = 1 in 3 of 4 objects" in warning
        assert "only 1 are learned from" in warning

    def test_all_of_one_class(self, four):
        for annotation in four.annotations[:2]:
            annotation["iscrowd"] = 1
        warning = suspicions(four)
        assert "iscrowd = 1 in most objects of 1 of 3 classes" in warning
        assert '2 of 2 "owl"' in warning
        assert silent(four, classes=["cat", "dog"]).problems == ()

    def test_difficult_objects_of_voc(self, tmp_path):
        for name in "ab":
            Image.new("RGB", (60, 40)).save(tmp_path / f"{name}.png")
            (tmp_path / f"{name}.xml").write_text(
                "<annotation><object><name>cat</name><difficult>1</difficult><bndbox>"
                "<xmin>5</xmin><ymin>5</ymin><xmax>50</xmax><ymax>30</ymax></bndbox></object>"
                "</annotation>"
            )
        with pytest.warns(UserWarning, match="difficult = 1 in all 2 objects"):
            load_voc(tmp_path)
        with pytest.warns(UserWarning, match="2 crowd regions read as ordinary"):
            dataset = load_voc(tmp_path, crowd="objects")
        assert [r.crowd.tolist() for r in dataset] == [[False], [False]]
        assert dataset[0].difficult is None


class TestFractions:
    def fractions(self, *annotations, corners=False):
        for annotation in annotations:
            x, y, width, height = annotation["bbox"]
            annotation["bbox"] = [x / 60, y / 40, width / 60, height / 40]

    def test_a_file_of_boxes_in_fractions_is_refused(self, four):
        self.fractions(*four.annotations)
        four.annotations.append(four.annotation(9, 11, 3, [0, 0, 0, 0]))
        with pytest.raises(DatasetError, match="1 problem in") as error:
            load_coco(four.write())
        assert "image 11, annotation 0: bbox = [0.01666" in str(error.value)
        assert "all boxes (4) are within 0..1: fractions of the image" in str(error.value)
        assert sum(problem.fatal for problem in check_coco(four.write())) == 1

    @pytest.mark.parametrize("box", [[0, 0, 1, 1], [0, 0, 1.0000002, 1], [0.9, 0.9, 0.2, 0.2]])
    def test_a_single_box_in_fractions_is_refused(self, four, box):
        four.annotations[:] = [four.annotation(1, 11, 3, box)]
        with pytest.raises(DatasetError, match="all boxes"):
            load_coco(four.write())

    def test_images_are_not_opened_for_it(self, four):
        self.fractions(*four.annotations)
        (four.folder / "a.png").unlink()
        with pytest.raises(DatasetError, match="1 problem in"):
            load_coco(four.write())

    def test_one_image_of_many(self, four):
        self.fractions(four.annotations[1], four.annotations[3])
        warning = suspicions(four, 2)
        assert "image 12, annotation 1: bbox = [0.33" in warning
        assert "image 12, annotation 3: bbox = [0.16" in warning
        assert "a fraction of the image's sides? Pixels are needed" in warning

    def test_many_are_counted(self, four):
        for i in range(20):
            four.annotations.append(four.annotation(100 + i, 12, 3, [0.5, 0.25, 0.25, 0.5]))
        dataset, warning = four.repaired()
        assert len(dataset.problems) == 20
        assert "... and 15 more like these (rcnn data check " in warning

    def test_polygons_in_fractions_are_dropped(self, four):
        for annotation in four.annotations:
            annotation["segmentation"] = [[0.1, 0.1, 0.9, 0.1, 0.9, 0.8]]
        dataset, warning = four.repaired()
        assert "4 segmentations in fractions dropped, boxes kept" in warning
        assert sum(map(len, dataset)) == 4

    def test_boxes_of_voc_in_fractions_are_refused(self, tmp_path):
        Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
        (tmp_path / "a.xml").write_text(
            "<annotation><object><name>cat</name><bndbox><xmin>0.1</xmin><ymin>0.2</ymin>"
            "<xmax>0.9</xmax><ymax>0.8</ymax></bndbox></object></annotation>"
        )
        with pytest.raises(DatasetError, match=r"a\.xml: object 0: bndbox = .*within 0\.\.1"):
            load_voc(tmp_path)

    def test_tiny_boxes_are_reported(self, four):
        for i, annotation in enumerate(four.annotations):
            annotation["bbox"] = [i, 20 + i, 1.5, 2]
        assert "boxes = at most 1.5 x 2 pixels in 4 objects" in suspicions(four)

    def test_all_in_one_quarter(self, four):
        four.annotations[:] = [four.annotation(i, 11, 3, [i / 2, i / 2, 12, 9]) for i in range(20)]
        assert "boxes = none of 20 reaches beyond x = 21.5, y = 18.5" in suspicions(four)
        four.annotations[0]["bbox"] = [20, 10, 12, 9]
        assert silent(four).problems == ()

    def test_tiny_areas_are_reported(self, four):
        for annotation in four.annotations:
            annotation["area"] = 0.25
        assert "area = at most 0.25 in 4 objects: is less than a pixel" in suspicions(four)
        four.annotations[0]["area"] = 25
        assert silent(four).problems == ()


class TestObjectsWithoutMask:
    @pytest.fixture
    def two_of_four(self, four):
        for annotation in four.annotations[:2]:
            annotation["segmentation"] = SQUARE
        four.annotations[2]["segmentation"] = [[1, 2, 3, 4]]
        return four

    def test_missing_masks_are_reported_beside_malformed_ones(self, two_of_four):
        warning = suspicions(two_of_four)
        assert "1 malformed segmentation dropped, its box kept" in warning
        assert "segmentation = missing in 2 of 4 objects" in warning
        assert "a.png object 1, " in warning
        assert "b.png object 1. " in warning
        assert 'without_mask="drop" leaves such objects out' in warning

    def test_objects_without_a_mask_are_left_out_if_asked_for(self, two_of_four):
        dataset, warning = two_of_four.repaired(without_mask="drop")
        assert "2 objects without a mask left out" in warning
        assert "\n" not in warning
        assert [r.segmentations for r in dataset] == [(SQUARE,), (SQUARE,)]
        assert check_coco(two_of_four.write(), without_mask="drop") == list(dataset.problems)

    def test_boxes_stand_for_missing_masks_if_asked_for(self, two_of_four):
        dataset, warning = two_of_four.repaired(without_mask="box")
        assert "2 boxes filled for objects without a mask" in warning
        assert dataset[0].segmentations[1] == [[3, 3, 43, 3, 43, 33, 3, 33]]
        dataset.batches(1, masks=True)

    def test_crowd_regions_need_none(self, two_of_four):
        for annotation in two_of_four.annotations[2:]:
            annotation.update(iscrowd=1, segmentation=[])
        dataset = load_coco(two_of_four.write(), without_mask="drop", classes=["owl"])
        assert sum(map(len, dataset)) == 2
        dataset, _ = two_of_four.repaired(without_mask="drop", crowd="objects")
        assert sum(map(len, dataset)) == 2

    def test_all_are_named_where_masks_are_needed(self, two_of_four):
        dataset, _ = two_of_four.repaired()
        with pytest.raises(ValueError, match="no segmentation") as error:
            dataset.batches(1, masks=True)
        assert "a.png: object 1 has no segmentation, so there is no mask of it" in str(error.value)
        assert "2 objects have no mask, the others are " in str(error.value)
        assert "b.png object 1. " in str(error.value)
        assert 'without_mask="drop"' in str(error.value)

    def test_a_list_of_many_is_short(self, four):
        four.annotations[:] = [four.annotation(i, 11, 3, [1, 2, 50, 30]) for i in range(500)]
        dataset = silent(four)
        with pytest.raises(ValueError, match="500 objects have no mask") as error:
            dataset.batches(1, masks=True)
        assert "object 9 and 490 more" in str(error.value)
        assert len(str(error.value)) < 2500


@pytest.mark.parametrize("rule", [{"crowd": "object"}, {"without_mask": "error"}])
def test_another_word_for_a_rule_is_refused(file, rule):
    (name, value) = rule.popitem()
    for read in (load_coco, check_coco):
        with pytest.raises(ValueError, match=f"{name} must be .* not '{value}'"):
            read(file.write(), **{name: value})


def test_the_command_lists_suspicions_and_takes_rules(four, rcnn):
    for annotation in four.annotations:
        annotation["iscrowd"] = 1
    result = rcnn("data", "check", four.write())
    assert result.exit_code == 0
    assert result.output.startswith("warning ")
    assert result.output.endswith("data.json: 0 fatal, 0 repaired, 1 warning\n")
    result = rcnn("data", "check", four.write(), "--crowd", "objects", "--without-mask", "box")
    assert result.output.endswith("data.json: 0 fatal, 8 repaired\n")


@pytest.mark.slow  # reads a set three times; of files see the tests above
def test_rules_of_record_files(four, tmp_path, rcnn):
    for annotation in four.annotations:
        annotation["iscrowd"] = 1
    four.annotations[0]["segmentation"] = SQUARE
    out = tmp_path / "records"
    with pytest.warns(UserWarning, match="in all 4 objects"):
        assert rcnn("data", "pack", four.write(), "--out", out).exit_code == 0
    with pytest.warns(UserWarning, match=r"manifest\.json: iscrowd = 1 in all 4 objects"):
        load_tfrecord(out)
    with pytest.warns(UserWarning, match="4 crowd regions read as ordinary objects, 3 objects"):
        dataset = load_tfrecord(out, crowd="objects", without_mask="drop")
    assert [len(record) for record in dataset] == [1, 0]
    assert any(problem.suspicious for problem in check_tfrecord(out))
    with pytest.raises(ValueError, match="rcnn data pack --without-mask box"):
        load_tfrecord(out, crowd="objects", without_mask="box")
    rcnn(
        *("data", "pack", four.write(), "--out", tmp_path / "filled"),
        *("--crowd", "objects", "--without-mask", "box"),
    )
    filled = load_tfrecord(tmp_path / "filled")
    assert [len(record) for record in filled] == [2, 2]
    filled.batches(1, masks=True)
