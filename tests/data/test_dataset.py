import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from rcnn_keras.data import DetectionDataset, Record, load_coco
from rcnn_keras.data.images import turn_boxes, turn_pixels, turn_segmentation
from rcnn_keras.data.problems import DatasetError, Problem, ProblemLog, summarise


def record(image_id, boxes=(), labels=(), **more):
    crowd = more.pop("crowd", np.zeros(len(labels), bool))
    path = more.pop("path", f"{image_id}.png")
    return Record(image_id, path, 40, 60, np.array(boxes), np.array(labels), crowd, **more)


@pytest.fixture
def dataset():
    triangle = [[1.0, 2.0, 9.0, 2.0, 1.0, 12.0]]
    return DetectionDataset(
        [
            record(7, [[1, 2, 9, 12], [0.1, 0.2, 59.7, 33.3]], [0, 2], crowd=[False, True],
                   segmentations=(triangle, None), areas=[40.0, 1500.5]),
            record(3),
            record(9, [[5, 5, 6, 6]], [1]),
        ],
        ["cat", "dog", "owl"],
        category_ids=[2, 5, 90],
        name="pets",
    )  # fmt: skip


def assert_same(first, second):
    assert first.classes == second.classes
    assert first.category_ids == second.category_ids
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert (a.image_id, a.path, a.height, a.width) == (b.image_id, b.path, b.height, b.width)
        for name in ("boxes", "labels", "crowd"):
            x, y = getattr(a, name), getattr(b, name)
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        assert a.segmentations == b.segmentations


def test_record_arrays_have_their_types():
    empty = record(1)
    assert empty.boxes.shape == (0, 4)
    assert (empty.boxes.dtype, empty.labels.dtype, empty.crowd.dtype) == ("f4", "i4", bool)
    assert len(record(1, [[0, 0, 1, 1]], [0])) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": np.zeros((1, 5))},
        {"boxes": np.zeros(4)},
        {"labels": np.zeros(2)},
        {"crowd": np.zeros((1, 1))},
        {"segmentations": ()},
        {"areas": np.zeros(2)},
    ],
)
def test_record_refuses_arrays_that_do_not_fit(change):
    with pytest.raises(ValueError, match=r"1\.png"):
        replace(record(1, [[0, 0, 1, 1]], [0]), **change)


def test_a_dataset_is_a_sequence_of_records(dataset):
    assert len(dataset) == 3
    assert dataset.max_objects == 2
    assert dataset[0].image_id == 7
    assert dataset[-1].image_id == 9
    assert [r.image_id for r in dataset] == [7, 3, 9]
    with pytest.raises(IndexError):
        dataset[3]
    part = dataset[1:]
    assert isinstance(part, DetectionDataset)
    assert [r.image_id for r in part] == [3, 9]
    assert (part.classes, part.category_ids) == (dataset.classes, dataset.category_ids)
    assert part.max_objects == 1
    assert dataset[1:2].max_objects == 1
    assert dataset[:0].max_objects == 1
    assert repr(dataset) == "DetectionDataset('pets', 3 images, 3 objects, 3 classes)"


def test_category_ids_count_from_one():
    assert DetectionDataset([], ["a", "b"]).category_ids == (1, 2)


@pytest.mark.parametrize(
    ("records", "classes", "ids", "message"),
    [
        (
            [record(1), record(1, path="b.png")],
            ["a"],
            None,
            r"id 1 is both 1\.png and b\.png",
        ),
        ([record(1, [[0, 0, 1, 1]], [1])], ["a"], None, r"1\.png: labels must be in 0\.\.0"),
        ([record(1, [[0, 0, 1, 1]], [-1])], ["a"], None, "labels"),
        ([], ["a", "b", "a"], None, r"repeated: \['a'\]"),
        ([], "cat", None, "the string 'cat'"),
        ([], ["a", "b"], [1], "2 different ids"),
        ([], ["a", "b"], [1, 1], "2 different ids"),
    ],
)
def test_inconsistent_records_are_refused(records, classes, ids, message):
    with pytest.raises(ValueError, match=message):
        DetectionDataset(records, classes, category_ids=ids)


def test_sum_keeps_ids_apart(dataset):
    other = DetectionDataset([record(100), record(101, [[1, 1, 2, 2]], [2])], dataset.classes)
    assert [r.image_id for r in dataset + other] == [7, 3, 9, 100, 101]
    both = dataset + dataset
    assert [r.image_id for r in both] == [7, 3, 9, 10, 11, 12]
    assert [r.path for r in both[3:]] == [r.path for r in dataset]
    assert both.category_ids == dataset.category_ids
    with pytest.raises(ValueError, match="same classes"):
        dataset + DetectionDataset([], ["cat"])
    with pytest.raises(TypeError):
        dataset + 1


def test_adding_two_datasets_warns_of_an_image_with_other_objects_in_each(dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset + dataset  # to count images twice
        dataset + DetectionDataset([record(8, [[1, 2, 9, 12]], [0])], dataset.classes)
    dogs = [replace(dataset[0], boxes=[[1, 1, 8, 8]], labels=[1], crowd=[False], areas=None,
                    segmentations=None), dataset[1]]  # fmt: skip
    with pytest.warns(UserWarning, match=r"1 images are in both .* as 7\.png: .* as background"):
        dataset + DetectionDataset(dogs, dataset.classes)


def test_with_classes_reorders_and_restricts(dataset):
    part = dataset.with_classes(["owl", "cat"])
    assert part.classes == ("owl", "cat")
    assert part.category_ids == (90, 2)
    assert [r.labels.tolist() for r in part] == [[1, 0], [], []]
    owls = dataset.with_classes(["owl"])
    np.testing.assert_array_equal(owls[0].boxes, dataset[0].boxes[1:])
    assert owls[0].crowd.tolist() == [True]
    assert owls[0].segmentations == (None,)
    assert owls[0].areas.tolist() == [1500.5]
    assert len(owls) == 3  # images without objects train as background


def test_with_classes_names_the_nearest(dataset):
    with pytest.raises(ValueError, match=r"'Owls' \(nearest: 'owl'\).*\['cat', 'dog', 'owl'\]"):
        dataset.with_classes(["cat", "Owls"])


def test_to_coco_has_images_objects_and_categories(dataset):
    coco = dataset.to_coco()
    assert coco["categories"] == [
        {"id": 2, "name": "cat"},
        {"id": 5, "name": "dog"},
        {"id": 90, "name": "owl"},
    ]
    assert coco["images"][0] == {"id": 7, "file_name": "7.png", "height": 40, "width": 60}
    first, second, third = coco["annotations"]
    assert first == {
        "id": 1,
        "image_id": 7,
        "category_id": 2,
        "bbox": [1, 2, 8, 10],
        "area": 40,
        "iscrowd": 0,
        "segmentation": [[1, 2, 9, 2, 1, 12]],
    }
    assert (second["iscrowd"], second["area"], second["category_id"]) == (1, 1500.5, 90)
    assert "segmentation" not in second
    assert (third["image_id"], third["area"]) == (9, 1)
    json.dumps(coco)


def test_a_saved_dataset_is_loaded_as_it_was(tmp_path, dataset):
    (tmp_path / "images").mkdir()
    records = []
    for r in dataset:
        path = tmp_path / "images" / r.path
        Image.new("RGB", (60, 40)).save(path)
        records.append(replace(r, path=str(path)))
    dataset = DetectionDataset(records, dataset.classes, category_ids=dataset.category_ids)
    dataset.save_coco(tmp_path / "pets.json")
    names = [
        image["file_name"] for image in json.loads((tmp_path / "pets.json").read_text())["images"]
    ]
    assert names == ["images/7.png", "images/3.png", "images/9.png"]
    assert_same(load_coco(tmp_path / "pets.json"), dataset)

    (tmp_path / "elsewhere").mkdir()
    dataset.save_coco(tmp_path / "elsewhere/pets.json")
    again = load_coco(tmp_path / "elsewhere/pets.json")
    assert_same(again, dataset)
    assert again[0].areas.tolist() == dataset[0].areas.tolist()


@pytest.mark.parametrize("name", ["coco_by/val.json", "nuclei/val.json"])
def test_round_trip_of_real_data(shared_data, tmp_path, name):
    dataset = load_coco(shared_data / name)
    dataset.save_coco(tmp_path / "copy.json")
    again = load_coco(tmp_path / "copy.json")
    assert_same(again, dataset)
    for a, b in zip(again, dataset, strict=True):
        np.testing.assert_array_equal(a.areas, b.areas)


def test_save_coco_writes_rle_bytes_as_text(tmp_path):
    mask = np.zeros((40, 60), np.uint8, order="F")
    mask[2:12, 1:9] = 1
    dataset = DetectionDataset(
        [record(1, [[1, 2, 9, 12]], [0], segmentations=(rle.encode(mask),))], ["a"]
    )
    dataset.save_coco(tmp_path / "a.json")
    saved = json.loads((tmp_path / "a.json").read_text())["annotations"][0]["segmentation"]
    np.testing.assert_array_equal(rle.decode(saved), mask)


def test_batches_gets_its_arguments(dataset):
    batches = dataset.batches(2, shuffle=True, min_size=32, max_size=64, max_objects=5, seed=4)
    assert len(batches) == 2
    assert batches.dataset is dataset
    assert (batches.batch_size, batches.shuffle, batches.seed) == (2, True, 4)
    assert (batches.min_size, batches.max_size, batches.max_objects) == (32, 64, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_and_masks_turn_with_their_image(orientation):
    box = np.array([[3.0, 5.0, 11.0, 7.0]])
    stored = np.zeros((20, 30), np.uint8)
    stored[5:7, 3:11] = 1
    upright = turn_pixels(stored, orientation)
    height, width = upright.shape
    x1, y1, x2, y2 = turn_boxes(box, orientation, height, width)[0].astype(int)
    expected = np.zeros_like(upright)
    expected[y1:y2, x1:x2] = 1
    np.testing.assert_array_equal(upright, expected)

    compressed = rle.encode(np.asfortranarray(stored))
    counts = {"size": [20, 30], "counts": [3 * 20 + 5] + [2, 18] * 7 + [2, 13 + 19 * 20]}
    np.testing.assert_array_equal(rle.decode(rle.frPyObjects(counts, 20, 30)), stored)
    for segmentation in (compressed, counts):
        turned = turn_segmentation(segmentation, orientation, height, width)
        np.testing.assert_array_equal(rle.decode(turned), upright)
    polygon = [[3, 5, 11, 5, 11, 7, 3, 7]]
    turned = turn_segmentation(polygon, orientation, height, width)
    np.testing.assert_array_equal(
        rle.decode(rle.frPyObjects(turned, height, width))[..., 0], upright
    )


def test_problem_reads_as_one_line():
    problem = Problem("a.json", "annotation 3", "bbox", "[1, 2, 0, 4]", "box without area", False)
    assert str(problem) == "a.json: annotation 3: bbox = [1, 2, 0, 4]: box without area"
    assert str(Problem("a.json", "", "", "", "is not JSON", True)) == "a.json: is not JSON"


def test_dataset_error_lists_twenty_and_counts_the_rest():
    log = ProblemLog()
    log.repaired("a.json", "annotation 1", "bbox", [1], "box clipped to its image")
    log.raise_fatal()
    for i in range(25):
        log.fatal("a.json", f"image {i}", "id", i, "is wrong")
    with pytest.raises(DatasetError, match="25 problems") as error:
        log.raise_fatal()
    lines = str(error.value).splitlines()
    assert len(lines) == 22
    assert "image 19" in lines[20]
    assert lines[-1].strip() == "... and 5 more"
    assert len(error.value.problems) == 26


def test_the_summary_counts_repairs():
    log = ProblemLog()
    for message in ["box clipped to its image"] * 3 + ["box without area dropped"]:
        log.repaired("a.json", "annotation 1", "bbox", [1], message)
    log.fatal("a.json", "", "", "", "is wrong")
    assert summarise(log.problems) == ("3 boxes clipped to their image, 1 box without area dropped")


def numbered(count, folder="a"):
    return DetectionDataset([record(i, path=f"{folder}/{i}.png") for i in range(count)], ["cat"])


def test_a_split_is_by_file_name_and_keeps_every_image_once():
    first, second = numbered(50).split(0.8)
    assert (len(first), len(second)) == (40, 10)
    ids = [r.image_id for r in first], [r.image_id for r in second]
    assert sorted([*ids[0], *ids[1]]) == list(range(50))
    assert ids == tuple(map(sorted, ids))
    assert ids[1] != list(range(40, 50))
    elsewhere = numbered(50, "b").split(0.8)
    assert [r.image_id for r in elsewhere[1]] == ids[1]
    # Of more images, those that were held out mostly stay so.
    more = {r.image_id for r in numbered(55).split(0.8)[1]}
    assert len(more & set(ids[1])) >= 8


def test_each_part_of_a_split_has_an_image():
    assert [len(part) for part in numbered(2).split(0.99)] == [1, 1]


@pytest.mark.parametrize("share", [0, 1, -0.5, 20])
def test_a_split_needs_a_share_between_0_and_1(share):
    with pytest.raises(ValueError, match="above 0 and below 1"):
        numbered(4).split(share)


def test_one_image_cannot_be_split():
    with pytest.raises(ValueError, match="cannot be split"):
        numbered(1).split(0.5)


@pytest.mark.parametrize("proposals", ["proposals.npz", [np.zeros((1, 4))]])
def test_proposals_are_given_by_image_id(dataset, proposals):
    with pytest.raises(TypeError, match=r"must map image ids to boxes.* received a (str|list)"):
        dataset.with_proposals(proposals)
