"""Files of the VGG Image Annotator: every form of them, and what is wrong with some."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.data.problems import DatasetError
from rcnn_keras.data.via import is_via
from rcnn_keras.runs.recipe import find_sources

POLYGON = {"name": "polygon", "all_points_x": [5, 25, 25, 5], "all_points_y": [6, 6, 16, 16]}
CIRCLE = {"name": "circle", "cx": 40, "cy": 20, "r": 8}
ELLIPSE = {"name": "ellipse", "cx": 30, "cy": 24, "rx": 12, "ry": 6}
RECT = {"name": "rect", "x": 1, "y": 2, "width": 10, "height": 20}
LINE = {"name": "polyline", "all_points_x": [1, 2], "all_points_y": [3, 4]}
POINT = {"name": "point", "cx": 1, "cy": 1}


def region(shape, **attributes):
    return {"shape_attributes": shape, "region_attributes": attributes}


def entry(name, regions, as_list=True):
    numbered = regions if as_list else {str(i): r for i, r in enumerate(regions)}
    return {"filename": name, "size": 123, "regions": numbered, "file_attributes": {}}


REGIONS = {
    "a.png": [region(POLYGON, kind="cat"), region(CIRCLE, kind="dog"), region(LINE, kind="cat")],
    "b.png": [region(ELLIPSE, kind="dog"), region(RECT, kind="cat")],
    "c.png": [],
}


def write(folder, content, name="via_region_data.json"):
    for image in ("a.png", "b.png", "c.png"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(folder / image)
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def as_json(folder, regions=REGIONS, as_list=True):
    entries = {f"{n}123": entry(n, its, as_list) for n, its in regions.items()}
    return write(folder, entries)


def as_project(folder, regions=REGIONS):
    entries = {f"{n}123": entry(n, its) for n, its in regions.items()}
    return write(folder, {"_via_settings": {}, "_via_img_metadata": entries, "_via_attributes": {}})


def as_csv(folder, regions=REGIONS, mark="#"):
    path = write(folder, "", "via.csv")
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            [f"{mark}filename", "file_size", "file_attributes", "region_count", "region_id",
             "region_shape_attributes", "region_attributes"]
        )  # fmt: skip
        for name, its in regions.items():
            for i, one in enumerate(its or [region({})]):
                parts = one["shape_attributes"], one["region_attributes"]
                rows.writerow([name, 123, "{}", len(its), i, *map(json.dumps, parts)])
    return path


FORMS = {
    "VIA 1": lambda folder: as_json(folder, as_list=False),
    "VIA 2": as_json,
    "a project": as_project,
    "CSV of VIA 1": as_csv,
    "CSV of VIA 2": lambda folder: as_csv(folder, mark=""),
    "a folder": lambda folder: as_json(folder).parent,
}


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_says_the_same(form, tmp_path):
    path = FORMS[form](tmp_path)
    assert is_via(path)
    dataset = rk.data.load_via(path)
    assert dataset.classes == ("cat", "dog")
    assert [len(record) for record in dataset] == [2, 2, 0]
    first, second = dataset[0], dataset[1]
    np.testing.assert_array_equal(first.boxes, [[5, 6, 25, 16], [32, 12, 48, 28]])
    np.testing.assert_array_equal(first.labels, [0, 1])
    np.testing.assert_array_equal(second.boxes, [[18, 18, 42, 30], [1, 2, 11, 22]])
    assert (first.height, first.width) == (48, 64)
    areas = [rk.data.decode_mask(s, 48, 64).sum() for s in first.segmentations]
    assert areas[0] == 200
    assert areas[1] == pytest.approx(math.pi * 64, rel=0.03)
    area = rk.data.decode_mask(second.segmentations[0], 48, 64).sum()
    assert area == pytest.approx(math.pi * 12 * 6, rel=0.03)
    assert second.segmentations[1] is None  # a rectangle has no mask
    assert [p.message for p in dataset.problems if not p.suspicious] == ["point or line left out"]


def test_a_turned_ellipse_has_the_box_around_it(tmp_path):
    turned = ELLIPSE | {"cx": 32, "cy": 24, "theta": math.pi / 6}
    dataset = rk.data.load_via(as_json(tmp_path, {"a.png": [region(turned, kind="x")]}))
    half_x = math.hypot(12 * math.cos(math.pi / 6), 6 * math.sin(math.pi / 6))
    half_y = math.hypot(12 * math.sin(math.pi / 6), 6 * math.cos(math.pi / 6))
    expected = [[32 - half_x, 24 - half_y, 32 + half_x, 24 + half_y]]
    np.testing.assert_allclose(dataset[0].boxes, expected, atol=1e-4)
    mask = rk.data.decode_mask(dataset[0].segmentations[0], 48, 64)
    assert mask[28, 38]  # it leans down to the right, as y goes down
    assert not mask[20, 38]


def test_what_has_no_area_is_left_out_with_a_count(tmp_path):
    short = {"name": "polygon", "all_points_x": [1, 2, 1], "all_points_y": [1, 2, 1]}
    regions = [region(s, kind="x") for s in (POINT, LINE, short, POLYGON, RECT | {"width": 0})]
    with pytest.warns(UserWarning, match="2 points and lines left out, 1 polygon of fewer"):
        dataset = rk.data.load_via(as_json(tmp_path, {"a.png": regions}))
    assert len(dataset[0]) == 1


def test_without_attributes_there_is_one_class(tmp_path):
    path = as_json(tmp_path, {"a.png": [region(POLYGON)], "b.png": [region(CIRCLE)]})
    assert rk.data.load_via(path).classes == ("object",)
    assert rk.data.load_via(path, classes=["balloon"]).classes == ("balloon",)


def test_of_several_attributes_one_is_named(tmp_path):
    its = [region(POLYGON, kind="cat", pose="left"), region(CIRCLE, kind={"dog": True}, pose="up")]
    path = as_json(tmp_path, {"a.png": its})
    with pytest.raises(DatasetError, match=r"attribute= says which.*kind \(.*pose \("):
        rk.data.load_via(path)
    assert rk.data.load_via(path, attribute="kind").classes == ("cat", "dog")
    assert rk.data.load_via(path, attribute="pose", classes=["up"]).classes == ("up",)
    with pytest.raises(DatasetError, match="no region has this; there are kind, pose"):
        rk.data.load_via(path, attribute="kin")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (region(POLYGON | {"all_points_y": [6, 6, 16]}, kind="x"), "4 values of x for 3 of y"),
        (region(POLYGON | {"all_points_x": [1, "b", 2, 3]}, kind="x"), "not a list of numbers"),
        (region(CIRCLE | {"r": -1}, kind="x"), r"attributes.r = -1: is not a finite number of at"),
        (region({"name": "rect", "x": 1, "y": 2, "width": 3}, kind="x"), "height = missing"),
        (region({"name": "star"}, kind="x"), "must be rect, polygon, circle, ellipse, point"),
        (region({}, kind="x"), "has no shape with a name"),
        (region(POLYGON), "kind = missing: the region has no class"),
        (region(POLYGON, kind={"a": True, "b": True}), "several are set"),
        (region(POLYGON, kind=["a"]), "the region has no class"),
        (3, "is not an object: 3"),
    ],
)
def test_what_is_wrong_is_named_with_its_image_and_region(broken, message, tmp_path):
    path = as_json(tmp_path, {"a.png": [region(CIRCLE, kind="x"), broken]})
    with pytest.raises(DatasetError, match=message) as error:
        rk.data.load_via(path)
    assert "a.png: region 1" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is not of VIA"),
        ("{}", "there is no image"),
        ({"project": {}, "metadata": {"1": {}}}, "is a project of VIA 3"),
        ({"x": {"regions": []}}, "filename = null: is not a file name"),
        ({"x": {"filename": "a.png", "regions": 3}}, "is neither an object nor a list"),
        ({"x": entry("d.png", [])}, "no such file"),
    ],
)
def test_files_that_are_none_of_via_are_named(content, message, tmp_path):
    path = write(tmp_path, content)
    with pytest.raises(DatasetError, match=message):
        rk.data.load_via(path)


def test_a_csv_without_its_columns_or_with_broken_cells_is_named(tmp_path):
    with pytest.raises(DatasetError, match="no column region_shape_attributes"):
        rk.data.load_via(write(tmp_path, "filename,region_attributes\na.png,{}\n", "x.csv"))
    path = as_csv(tmp_path)
    path.write_text(path.read_text().replace('"{""name"": ""circle""', '"{""name"": circle'))
    with pytest.raises(DatasetError, match=r"line 3, a.png: region_shape_attributes"):
        rk.data.load_via(path)


@pytest.mark.filterwarnings("ignore:.*left out")
def test_configurations_find_it_and_other_files_are_not_taken_for_it(tmp_path):
    path = as_json(tmp_path)
    assert find_sources(path).format == "via"
    rk.data.load_via(path).save_coco(tmp_path / "coco.json")
    assert not is_via(tmp_path / "coco.json")
