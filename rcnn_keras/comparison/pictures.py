"""The same images through all detectors, drawn beside their ground truth."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from rcnn_keras import visualize
from rcnn_keras.comparison.timing import spread
from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.detections import Detections

COLUMNS = 3
LONG_SIDE = 320  # pixels that a small image is enlarged to, for its tags to be read
TITLE_HEIGHT = 24


def choose(dataset: DetectionDataset, count: int) -> list[Record]:
    """Return images with objects, evenly over a data set."""
    records = [record for record in dataset if (~record.crowd).any()]
    return list(spread(DetectionDataset(records, dataset.classes), count))


def draw_side_by_side(
    path: Path, record: Record, classes: tuple[str, ...], found: dict[str, Detections]
) -> None:
    """Write a picture of an image: its ground truth, and what each detector finds in it.

    Args:
        path: a PNG file.
        record: the image.
        classes: names of its labels.
        found: detections by what stands above them.
    """
    image = record.image
    zoom = max(1, LONG_SIDE // max(record.height, record.width))
    panels = [
        _titled("ground truth", visualize.draw(image, record, classes=classes, zoom=zoom)),
        *(_titled(t, visualize.draw(image, d, zoom=zoom)) for t, d in found.items()),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet = visualize.grid(panels, COLUMNS)
    sheet.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)  # a third of the bytes


def _titled(title: str, picture: Image.Image) -> Image.Image:
    """Return a picture under a line of text."""
    sheet = Image.new("RGB", (picture.width, picture.height + TITLE_HEIGHT), "white")
    sheet.paste(picture, (0, TITLE_HEIGHT))
    font = ImageFont.load_default(size=15)
    ImageDraw.Draw(sheet).text((2, 2), title, fill="black", font=font)
    return sheet
