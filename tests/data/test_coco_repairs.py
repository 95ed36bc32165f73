"""What is repaired in COCO files, with a warning."""

import numpy as np
import pytest
from PIL import Image

from rcnn_keras.data import check_coco, load_coco

pytestmark = pytest.mark.usefixtures("no_unexpected_warning")


class TestMended:
    def test_box_over_the_border(self, file):
        file.annotations[0]["bbox"] = [-5, 30, 20, 20]
        dataset, warning = file.repaired()
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
    def test_a_box_without_area_is_dropped_with_a_count(self, file, bbox):
        file.annotations[0]["bbox"] = bbox
        dataset, warning = file.repaired()
        assert "1 box without area dropped" in warning
        assert dataset[0].labels.tolist() == [0]
        assert dataset[0].crowd.tolist() == [True]

    @pytest.mark.parametrize("bbox", [[60, 4, 5, 5], [-9, 4, 9, 5], [3, 100, 5, 5]])
    def test_a_box_outside_the_image_is_dropped_with_a_count(self, file, bbox):
        file.annotations[0]["bbox"] = bbox
        dataset, warning = file.repaired()
        assert "1 box outside its image dropped" in warning
        assert len(dataset[0]) == 1

    def test_repairs_of_one_kind_are_counted(self, file):
        boxes = [[-5, 1, 20, 20], [1, -5, 20, 20], [1, 1, 200, 20], [1, 1, 0, 2], [1, 1, 2, 0]]
        for i, box in enumerate(boxes, start=100):
            file.annotations.append(file.annotation(i, 12, 7, box))
        dataset, warning = file.repaired()
        assert "3 boxes clipped to their image, 2 boxes without area dropped (" in warning
        assert len(dataset[1]) == 3
        assert len(dataset.problems) == 5

    def test_a_missing_size_is_taken_from_the_image(self, file):
        del file.images[0]["width"]
        dataset, warning = file.repaired()
        assert "1 size missing, taken from the image" in warning
        assert (dataset[0].height, dataset[0].width) == (40, 60)

    @pytest.mark.parametrize(
        ("segmentation", "where"),
        [
            ([[1, 2, 3, 4]], ".0 = [1, 2, 3, 4]"),
            ([[1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4]], ".0 = [1, 2, 3, 4, 5, 6, 7]"),
            ([[]], ".0 = []"),
            ([1, 2, 3, 4], ".0 = 1"),
            ([[1, 2, 3, 4, 5, "six"]], '.0 = [1, 2, 3, 4, 5, "six"]'),
            ([[1, 2, 3, 4, 5, None]], ".0 = [1, 2, 3, 4, 5, null]"),
            ([[1, 2, 3, 4, 5, 6]], ".0 = [1, 2, 3, 4, 5, 6]"),  # on one line
            ([[1, 2, 1, 2, 1, 2]], ".0 = [1, 2, 1, 2, 1, 2]"),
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
            ({"size": [40, 60], "counts": [2400]}, ".counts = [2400]"),  # sets no pixel
            ({"size": [40, 60], "counts": [2400, 0]}, ".counts = [2400, 0]"),
            ({"size": [40, 60], "counts": "P[2"}, ".counts = P[2"),
            ([[1, 2, 3, 4, 5, 601]], ".0 = [1, 2, 3, 4, 5, 601]"),
        ],
    )
    def test_malformed_segmentation(self, file, segmentation, where):
        sound = [[1, 2, 11, 2, 11, 22], [5, 5, 6, 5, 6, 6.5, 5, 6]]
        file.annotations[0]["segmentation"] = segmentation
        file.annotations[1]["segmentation"] = sound
        dataset, warning = file.repaired()
        assert "1 malformed segmentation dropped, its box kept" in warning
        assert dataset[0].segmentations == (None, sound)
        assert len(dataset[0]) == 2
        (problem,) = dataset.problems
        assert f"annotation 1: segmentation{where}" in str(problem)

    def test_no_object_at_all(self, file):
        file.annotations.clear()
        dataset, warning = file.repaired()
        assert warning.startswith("data: 1 dataset without any object (")
        assert len(dataset) == 2


@pytest.mark.parametrize("counts", [[100, 50, 2250], "T3b1ZV2"])
def test_run_lengths_of_the_image_are_kept(file, counts):
    rle = {"size": [40, 60], "counts": counts}
    file.annotations[1]["segmentation"] = rle
    assert load_coco(file.write())[0].segmentations == (None, rle)
    del file.images[0]["width"]  # then the size is the file's
    rle["size"] = [40, 61]
    dataset, warning = file.repaired()
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
    dataset, warning = file.repaired()
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
    turned(file := type(file)(file.folder), 3)
    assert load_coco(file.write())[0].boxes.tolist() == [[1, 2, 11, 22]]
