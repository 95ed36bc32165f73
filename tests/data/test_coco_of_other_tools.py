"""COCO files as other tools write them: read, with a count of what was repaired."""

import pytest
from PIL import Image

from rcnn_keras.data import check_coco, load_coco, load_voc

pytestmark = pytest.mark.usefixtures("no_unexpected_warning")

SQUARE = [5, 5, 20, 5, 20, 20, 5, 20]


def one_problem(dataset, text):
    (problem,) = dataset.problems
    assert str(problem).endswith(text)


class TestNumbersAsText:
    def test_ids_of_the_via_annotator(self, file):
        for number, image in enumerate(file.images):
            image["id"] = str(number)
        for annotation in file.annotations:
            annotation["image_id"] = "0"
        dataset, warning = file.repaired()
        assert "4 numbers read from text" in warning
        assert [(r.image_id, len(r)) for r in dataset] == [(0, 2), (1, 0)]
        assert 'image_id = "0": number read from text' in str(dataset.problems[2])

    @pytest.mark.parametrize("id", ["11", " 11", "+11", "11.0"])
    def test_a_reference_may_be_text_where_the_id_is_a_number(self, file, id):
        file.annotations[0]["image_id"] = id
        dataset, warning = file.repaired()
        assert "1 number read from text" in warning
        assert len(dataset[0]) == 2

    def test_whole_numbers_with_a_decimal_point_are_whole_numbers(self, file):
        for item in (*file.images, *file.annotations, *file.categories):
            item["id"] = float(item["id"])
        file.annotations[0].update(image_id=11.0, category_id=90.0, iscrowd=0.0)
        dataset = load_coco(file.write())
        assert dataset.problems == ()
        assert dataset.category_ids == (3, 7, 90)
        assert {type(r.image_id) for r in dataset} == {int}

    @pytest.mark.parametrize(
        ("kind", "key", "value", "shown"),
        [
            ("annotations", "bbox", ["1", "2.0", "1e1", 20], 'bbox = ["1", "2.0", "1e1", 20]'),
            ("annotations", "category_id", "90", 'category_id = "90"'),
            ("annotations", "id", "1", 'id = "1"'),
            ("annotations", "iscrowd", "0", 'iscrowd = "0"'),
            ("annotations", "iscrowd", "false", 'iscrowd = "false"'),
            ("annotations", "iscrowd", "0.0", 'iscrowd = "0.0"'),
            ("annotations", "iscrowd", "No", 'iscrowd = "No"'),
            ("annotations", "area", "200.5", 'area = "200.5"'),
            ("images", "width", "60", 'width = "60"'),
            ("images", "id", "11", 'id = "11"'),
            ("categories", "id", "90", 'id = "90"'),
        ],
    )
    def test_a_number_written_as_text_is_read(self, file, kind, key, value, shown):
        expected = load_coco(file.write())
        file.content[kind][0][key] = value
        dataset, warning = file.repaired()
        assert "1 number read from text" in warning
        one_problem(dataset, f"{shown}: number read from text")
        assert check_coco(file.write()) == list(dataset.problems)
        assert dataset[0].boxes.tolist() == expected[0].boxes.tolist()
        assert dataset[0].labels.tolist() == expected[0].labels.tolist()
        assert dataset[0].crowd.tolist() == expected[0].crowd.tolist()
        if key == "area":
            assert dataset[0].areas.tolist() == [200.5, 56]

    @pytest.mark.parametrize("flag", [True, 1, 1.0])
    def test_true_is_a_crowd_flag(self, file, flag):
        file.annotations[1]["iscrowd"] = flag
        assert load_coco(file.write())[0].crowd.tolist() == [False, True]

    @pytest.mark.parametrize("flag", [None, False, 0])
    def test_no_crowd_flag_is_false(self, file, flag):
        file.annotations[0]["iscrowd"] = flag
        assert load_coco(file.write())[0].crowd.tolist() == [False, True]

    @pytest.mark.parametrize(
        ("value", "shown"), [(None, "null"), (True, "true"), ("x", '"x"'), ("12x", '"12x"')]
    )
    def test_messages_show_values_as_json_has_them(self, file, value, shown):
        file.annotations[0]["image_id"] = value
        file.fatal(f"annotation 1: image_id = {shown}: no image has this id")

    def test_digits_as_class_names(self, file):
        file.categories[0]["name"] = 7
        dataset, warning = file.repaired()
        assert dataset.classes == ("cat", "dog", "7")
        assert "1 class name read from a number" in warning

    def test_an_area_that_is_no_number_is_counted(self, file):
        file.annotations[0]["area"] = "large"
        dataset, warning = file.repaired()
        assert "1 area that is no number left out" in warning
        one_problem(dataset, 'area = "large": area that is no number left out')

    def test_run_lengths(self, file):
        lengths = ["400", "200", "1800"]
        file.annotations[0]["segmentation"] = {"size": ["40", "60"], "counts": lengths}
        dataset, warning = file.repaired()
        assert "1 number read from text" in warning
        assert dataset[0].segmentations[0] == {"size": [40, 60], "counts": [400, 200, 1800]}


def named(file, *names):
    """Give the three categories other names, and each an object."""
    for category, name in zip(file.categories, names, strict=True):
        category["name"] = name
    file.annotations.append(file.annotation(3, 12, 7, [5, 5, 10, 10]))
    return file


class TestNamesOfClasses:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("red cell", " red  cell\t"),
            ("red cell", "red\u00a0cell"),
            ("caf\u00e9", "cafe\u0301"),
        ],
    )
    def test_names_that_look_alike_are_one_class(self, file, one, other):
        dataset, warning = named(file, one, other, "dog").repaired()
        assert set(dataset.classes) == {one, "dog"}
        assert "1 class name spelled with other spaces or characters" in warning
        assert "1 category joined with another of its name" in warning
        assert [r.labels.tolist() for r in dataset] == [[0, 0], [1]]

    def test_a_name_that_is_asked_for_stays_as_it_stands(self, file):
        named(file, "red cell ", "cat", "dog")
        dataset = load_coco(file.write(), classes=["red cell ", "cat", "dog"])
        assert len(dataset[0]) == 2

    def test_names_that_differ_in_letter_case_are_suspicious(self, file):
        dataset, warning = named(file, "Cell", "cell", "dog").repaired()
        assert dataset.classes == ("cell", "dog", "Cell")
        assert 'classes = "cell", "Cell": are classes apart, and differ in letter case' in warning

    def test_letters_are_classes_of_their_own(self, file):
        assert len(load_coco(named(file, "A", "a", "b").write()).classes) == 3

    def test_a_name_of_spaces_is_none(self, file):
        file.categories[0]["name"] = "  "
        file.fatal('category 90: name = "  ": is not a name')


class TestIdsThatAreNoNumbers:
    def test_file_names_as_ids_are_numbered(self, file):
        for image in file.images:
            image["id"] = image["file_name"]
        for annotation in file.annotations:
            annotation["image_id"] = "b.png"
        dataset, warning = file.repaired()
        assert [(r.image_id, len(r)) for r in dataset] == [(1, 0), (2, 2)]
        assert "4 ids that are no numbers replaced by some" in warning

    def test_text_ids_beside_numbers_get_free_numbers(self, file):
        file.images[0]["id"] = "a"
        file.annotations[0]["image_id"] = file.annotations[1]["image_id"] = "a"
        dataset, _ = file.repaired()
        assert [r.image_id for r in dataset] == [13, 12]

    def test_a_number_that_stands_for_a_text_is_no_id(self, file):
        file.images[0]["id"] = "a"
        file.annotations[1]["image_id"] = "a"
        file.annotations[0]["image_id"] = 13  # the number of "a", which the file does not have
        file.fatal("annotation 1: image_id = 13: no image has this id")

    def test_of_categories_and_annotations(self, file):
        file.categories[0]["id"] = file.annotations[0]["category_id"] = "owl"
        file.annotations[0]["id"] = "e7a1"
        dataset, warning = file.repaired()
        assert "3 ids that are no numbers" in warning
        assert dataset.classes == ("cat", "dog", "owl")
        assert dataset[0].labels.tolist() == [2, 0]

    def test_a_repeated_text_id_is_refused(self, file):
        file.images[0]["id"] = file.images[1]["id"] = "a"
        file.annotations.clear()
        file.fatal('id = "a": more than one image has this id')


class TestCategories:
    def names(self, file, *categories):
        file.content["categories"][:] = [
            dict(zip(("id", "name", "supercategory"), category, strict=False))
            for category in categories
        ]
        file.annotations[1]["iscrowd"] = 0
        return file.repaired()

    def test_a_category_that_is_repeated_counts_once(self, file):
        file.categories += [dict(file.categories[0]), dict(file.categories[0])]
        dataset, warning = file.repaired()
        assert dataset.classes == ("cat", "dog", "owl")
        assert "2 categories listed twice, read once" in warning

    def test_of_one_id_and_two_names(self, file):
        file.categories.append({"id": 3, "name": "lion"})
        file.fatal("category 3: id = 3: more than one category has this id")

    def test_two_of_one_name(self, file):
        dataset, warning = self.names(file, (90, "cat"), (3, "cat"), (7, "dog"))
        assert dataset.classes == ("cat", "dog")
        assert dataset.category_ids == (3, 7)
        assert dataset[0].labels.tolist() == [0, 0]
        assert "1 category joined with another of its name" in warning
        one_problem(dataset, 'category 90: name = "cat": category joined with another of its name')

    def test_roboflows_root_is_no_class(self, file):
        categories = (0, "birds-x7", "none"), (3, "cat", "birds-x7"), (90, "owl", "birds-x7")
        dataset, warning = self.names(file, *categories)
        assert dataset.classes == ("cat", "owl")
        assert dataset[0].labels.tolist() == [1, 0]
        assert "1 root category without objects left out" in warning
        wanted = ["birds-x7", "cat", "owl"]
        assert load_coco(file.write(), classes=wanted).classes == tuple(wanted)

    @pytest.mark.parametrize("parent", ["cat", "none"])
    def test_roboflows_root_of_a_classs_name(self, file, parent):
        dataset, _ = self.names(file, (0, "cat", "none"), (3, "cat", parent), (90, "owl", "cat"))
        assert dataset.classes == ("cat", "owl")
        assert dataset.category_ids == (3, 90)

    def test_a_root_with_objects_is_a_class(self, file):
        file.content["categories"][:] = [
            {"id": 3, "name": "animal", "supercategory": "none"},
            {"id": 90, "name": "owl", "supercategory": "animal"},
        ]
        assert load_coco(file.write()).classes == ("animal", "owl")

    def test_classes_without_objects_are_no_roots(self, file):
        for category in file.categories:
            category["supercategory"] = "none"
        file.categories.append({"id": 1, "name": "none", "supercategory": "none"})
        file.categories.append({"id": 2, "name": "person", "supercategory": "person"})
        assert len(load_coco(file.write()).classes) == 5

    @pytest.mark.parametrize("name", ["_background_", "background", "__background__", "BG"])
    def test_background_is_no_class(self, file, name):
        dataset, warning = self.names(file, (0, name), (3, "cat"), (90, "owl"))
        assert dataset.classes == ("cat", "owl")
        assert "1 background category without objects left out" in warning

    def test_background_with_objects_is_a_class(self, file):
        file.categories[0]["name"] = "background"
        assert load_coco(file.write()).classes == ("cat", "dog", "background")


class TestPolygons:
    @pytest.mark.parametrize(
        ("stated", "repair"),
        [
            (SQUARE, "flat list of coordinates read as a polygon"),
            ([[5, 5], [20, 5], [20, 20], [5, 20]], "list of points read as polygons"),
            ([[[5, 5], [20, 5], [20, 20], [5, 20]]], "list of points read as polygons"),
            ([[[5, 5]], [[20, 5]], [[20, 20]], [[5, 20]]], "list of points read as polygons"),
            ([list(map(str, SQUARE))], "number read from text"),
        ],
    )
    def test_nested_otherwise(self, file, stated, repair):
        file.annotations[0]["segmentation"] = stated
        dataset, warning = file.repaired()
        assert f"1 {repair}" in warning
        assert dataset[0].segmentations == ([SQUARE], None)
        assert check_coco(file.write()) == list(dataset.problems)

    def test_flat_list_of_text(self, file):
        file.annotations[0]["segmentation"] = list(map(str, SQUARE))
        dataset, warning = file.repaired()
        assert "1 number read from text, 1 flat list of coordinates read as a polygon" in warning
        assert dataset[0].segmentations == ([SQUARE], None)

    @pytest.mark.parametrize("nothing", [None, [], {}, ""])
    def test_an_empty_segmentation_is_no_segmentation(self, file, nothing):
        file.annotations[0]["segmentation"] = nothing
        assert load_coco(file.write())[0].segmentations is None

    @pytest.mark.parametrize(
        "bad",
        [
            [3, 4, 5, 6],  # two points
            [],
            [1, 2, 3, 4, 5, 6, 7],
            [5, 5, 5, 5, 5, 5],
            [5, 5, 9, 9, 7, 7, 6, 6],  # on one line
            [5, 5, 15, 5.0001, 10, 5],
            [5, 5, 20, float("nan"), 20, 20],
            [5, 5, 20, 1e9, 20, 20],
            [5, 5, 20, None, 20, 20],
        ],
    )
    def test_a_bad_one_beside_good_ones(self, file, bad):
        file.annotations[0]["segmentation"] = [SQUARE, bad, SQUARE]
        dataset, warning = file.repaired()
        assert "1 malformed polygon dropped, the others kept" in warning
        assert dataset[0].segmentations == ([SQUARE, SQUARE], None)
        (problem,) = dataset.problems
        assert (problem.id, problem.field) == ("annotation 1", "segmentation.1")

    def test_a_bow_tie_and_a_small_one_are_good(self, file):
        polygons = [[5, 5, 20, 20, 20, 5, 5, 20], [1, 1, 1.5, 1, 1, 1.5]]
        file.annotations[0]["segmentation"] = polygons
        assert load_coco(file.write())[0].segmentations == (polygons, None)


class TestSizes:
    @pytest.mark.parametrize("size", [{"width": 0, "height": 0}, {"width": None}, {"height": 0}])
    def test_an_unknown_size_is_taken_from_the_image(self, file, size):
        file.images[0].update(size)
        dataset, warning = file.repaired()
        assert "1 size missing, taken from the image" in warning
        assert (dataset[0].height, dataset[0].width) == (40, 60)


class TestOneFileUnderTwoIds:
    @pytest.mark.parametrize("name", ["a.png", "./a.png", "x/../a.png", ".//a.png"])
    @pytest.mark.parametrize("first", [True, False])
    def test_once_without_its_objects(self, file, name, first):
        (file.folder / "x").mkdir()
        file.images.insert(0 if first else 2, {"id": 9, "file_name": name})
        dataset, warning = file.repaired()
        assert "1 image listed twice, read once" in warning
        assert [(r.image_id, len(r)) for r in dataset] == [(11, 2), (12, 0)]
        assert ": image 9, also image 11: file_name = " in str(dataset.problems[0])
        assert check_coco(file.write()) == list(dataset.problems)

    def test_an_image_for_each_object(self, file):
        file.images.append({**file.images[0], "id": 9})
        file.annotations[1]["image_id"] = 9
        file.annotations.append({**file.annotations[0], "id": 5, "image_id": 9})
        dataset, warning = file.repaired()
        assert "1 image of two ids read once, with the objects of both" in warning
        assert [(r.image_id, len(r)) for r in dataset] == [(11, 2), (12, 0)]

    def test_an_image_of_two_sizes_is_refused(self, file):
        file.images.append({**file.images[0], "id": 9, "width": 61})
        file.annotations[1]["image_id"] = 9
        file.fatal("image 9: size = 61x40")

    def test_two_files_of_voc_that_name_one_image(self, tmp_path):
        Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
        item = (
            "<object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>50</xmax>"
            "<ymax>30</ymax></bndbox></object>"
        )
        for name, objects in (("a", ""), ("b", item)):
            text = f"<annotation><filename>a.png</filename>{objects}</annotation>"
            (tmp_path / f"{name}.xml").write_text(text)
        with pytest.warns(UserWarning, match="1 image listed twice, read once"):
            dataset = load_voc(tmp_path)
        assert [len(record) for record in dataset] == [1]
        assert "also " in dataset.problems[0].id
