"""What COCO files are refused for."""

import json

import pytest

from rcnn_keras.data import DatasetError, check_coco, load_coco

pytestmark = pytest.mark.usefixtures("no_unexpected_warning")


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
    def test_a_file_that_is_not_json_is_refused(self, file, text, message):
        path = file.write()
        path.write_text(text)
        with pytest.raises(DatasetError, match=message):
            load_coco(path)
        assert len(check_coco(path)) == 1

    def test_a_file_that_is_not_text_is_refused(self, file):
        path = file.write()
        path.write_bytes(b'{"images": "\xff\xfe\xfa"}')
        with pytest.raises(DatasetError, match="is not JSON"):
            load_coco(path)

    def test_a_missing_file_is_named(self, tmp_path):
        with pytest.raises(DatasetError, match=r"none\.json: cannot be read: No such file"):
            load_coco(tmp_path / "none.json")

    @pytest.mark.parametrize("key", ["images", "annotations", "categories"])
    def test_a_file_without_a_list_is_refused(self, file, key):
        del file.content[key]
        file.fatal(f"{key} = missing")

    def test_list_of_another_type(self, file):
        file.content["annotations"] = {"1": 2}
        file.fatal('annotations = {"1": 2}: a COCO file has a list here')

    @pytest.mark.parametrize("kind", ["images", "categories"])
    def test_a_file_with_an_empty_list_is_refused(self, file, kind):
        file.annotations.clear()
        file.content[kind].clear()
        file.fatal("there is no " + {"images": "image", "categories": "category"}[kind])

    @pytest.mark.parametrize("id", [None, "", 1.5, True, 2**63, [1]])
    @pytest.mark.parametrize("kind", ["images", "annotations", "categories"])
    def test_an_unusable_id_is_named(self, file, kind, id):
        item = {"images": file.images[1], "annotations": file.annotations[1]}.get(
            kind, file.categories[2]
        )
        item["id"] = id
        file.fatal("at index", f"id = {json.dumps(id)}: is not a 64-bit integer")

    @pytest.mark.parametrize(
        ("kind", "text"),
        [("images", "image 11"), ("annotations", "annotation 1"), ("categories", "category 90")],
    )
    def test_a_repeated_id_is_refused(self, file, kind, text):
        file.content[kind].append(file.content[kind][0] | {"name": "another"})
        file.fatal(text, "has this id")

    def test_entry_that_is_no_object(self, file):
        file.annotations.append("box")
        file.fatal("annotation at index 2", '"box"')

    @pytest.mark.parametrize("name", ["", None, True, ["cat"]])
    def test_class_without_name(self, file, name):
        file.categories[2]["name"] = name
        file.fatal(f"category 7: name = {json.dumps(name)}: is not a name")

    def test_image_without_name(self, file):
        del file.images[0]["file_name"]
        file.fatal("image 11: file_name = missing")

    @pytest.mark.parametrize("width", [-60, "-60", 60.5, "sixty", float("nan"), float("inf"), True])
    def test_an_impossible_size_is_named(self, file, width):
        file.images[0]["width"] = width
        file.fatal("image 11", "width = ")

    def test_an_annotation_of_an_unknown_image_is_refused(self, file):
        file.annotations[0]["image_id"] = 13
        file.fatal("annotation 1: image_id = 13: no image has this id")

    def test_unknown_category(self, file):
        file.annotations[0]["category_id"] = 4
        file.fatal("annotation 1: category_id = 4: no category has this id")

    def test_missing_category(self, file):
        del file.annotations[0]["category_id"]
        file.fatal("annotation 1: category_id = missing")

    def test_an_annotation_without_a_box_is_refused(self, file):
        del file.annotations[1]["bbox"]
        file.fatal("annotation 2: bbox = missing")

    @pytest.mark.parametrize(
        ("bbox", "message"),
        [
            ([1, 2, -3, 4], "negative"),
            ([1, 2, 3, -4], "negative"),
            ([1, 2, 3], "four numbers"),
            ([1, 2, 3, 4, 5], "four numbers"),
            ([1, 2, 3, "four"], "four numbers"),
            ([1, 2, 3, None], "four numbers"),
            ("1 2 3 4", "four numbers"),
            ([1, 2, float("nan"), 4], "not finite"),
            ([1, float("inf"), 3, 4], "not finite"),
            ([1, 2, 10**400, 4], "not finite"),
        ],
    )
    def test_an_impossible_box_is_named(self, file, bbox, message):
        file.annotations[0]["bbox"] = bbox
        file.fatal("annotation 1: bbox = ", message)

    def test_an_unknown_crowd_flag_is_named(self, file):
        file.annotations[0]["iscrowd"] = 2
        file.fatal("annotation 1: iscrowd = 2")
        file.annotations[0]["iscrowd"] = "2"
        file.fatal('annotation 1: iscrowd = "2"')

    def test_a_missing_image_file_is_refused(self, file):
        (file.folder / "b.png").unlink()
        file.fatal("image 12", "b.png", "no such file")

    def test_a_long_path_is_reported_in_full(self, file):
        file.images[1]["file_name"] = f"{'folder/' * 30}owl.png"
        file.fatal(f"{'folder/' * 30}owl.png: no such file")

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
        file.categories.append({"id": 100, "name": None})
        (file.folder / "b.png").unlink()
        path = file.write()
        with pytest.raises(DatasetError, match="4 problems") as error:
            load_coco(path)
        found = check_coco(path)
        assert set(error.value.problems) <= set(found)
        assert [p.id for p in found if p.fatal] == [
            "category 100", "annotation 1", "annotation 2", "image 12",
        ]  # fmt: skip
