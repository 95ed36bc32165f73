"""A small COCO file to be spoilt, for the tests of what is read, repaired and refused."""

import json
import warnings

import pytest
from PIL import Image

from rcnn_keras.data import DatasetError, check_coco, load_coco


class CocoFile:
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

    def repaired(self, **options):
        """Load the file, which has to warn once; return the dataset and the warning."""
        with pytest.warns(UserWarning) as caught:  # noqa: PT030, the callers look at the text
            dataset = load_coco(self.write(), **options)
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
    return CocoFile(tmp_path)


@pytest.fixture
def no_unexpected_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
