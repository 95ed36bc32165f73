"""`rcnn explain`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rcnn_keras.cli.common import load_dataset, must_be_a_model, must_exist, quiet_import
from rcnn_keras.utils.output_paths import check_output_file

if TYPE_CHECKING:
    from rcnn_keras.data.dataset import DetectionDataset, Record


@click.command()
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="A name that `rcnn presets` lists, or a .keras file.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="HTML file."
)
@click.option(
    "--data",
    "annotations",
    type=click.Path(path_type=Path),
    help="COCO JSON file or Pascal VOC folder that has the image: explain its ground truth too.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the images of --data, if it is a COCO file.  [default: the file's folder]",
)
@click.option("--split", help="Image list of --data, if it is a VOC folder.")
@click.option(
    "--proposals",
    type=click.Path(path_type=Path, dir_okay=False),
    help="`rcnn proposals` for --data, for R-CNN and Fast R-CNN.  [default: selective search]",
)
def explain(
    image: Path,
    model: str,
    out: Path,
    annotations: Path | None,
    images: Path | None,
    split: str | None,
    proposals: Path | None,
) -> None:
    """Show how a detector comes to its detections in IMAGE, on one page.

    \b
    Example:
      rcnn explain smear.jpg --model blood_cells --out smear.html
      rcnn explain images/7.png --model runs/first/best.keras --data val.json --out 7.html

    The page has the input, feature maps, anchors, objectness, proposals before and after NMS, where
    each detection was read, class probabilities, boxes on their way, and masks; with --data also
    matches, samples and losses. It is a single file that needs no network.
    """
    must_exist(image, "image")
    if image.is_dir():
        raise IsADirectoryError(f"{image} is a folder: name an image")
    must_be_a_model(model)
    if annotations is not None:
        must_exist(annotations, "annotations")
    elif proposals is not None:
        raise click.UsageError("--proposals are those of the images of --data: name it, too")
    elif images is not None or split is not None:
        raise click.UsageError("--images and --split are for --data")
    if proposals is not None:
        must_exist(proposals, "proposals")
    check_output_file(out)
    if out.resolve() == image.resolve():
        raise click.UsageError(f"{image} would be overwritten: name another file with --out")
    with quiet_import():
        from rcnn_keras.data.images import image_header
        from rcnn_keras.explain import explain as look_inside
        from rcnn_keras.presets import from_preset
        from rcnn_keras.proposals.proposal_file import read_into
    image_header(image)  # before the model is loaded
    detector = from_preset(model)
    if proposals is not None and not detector.takes_proposals:
        raise click.UsageError(
            f"{model} finds its own proposals: --proposals {proposals} is not for it"
        )
    shown: str | Record = str(image)
    if annotations is not None:
        dataset = load_dataset(annotations, images, split, detector.classes)
        shown = _record_of(image, dataset if proposals is None else read_into(dataset, proposals))
    explanation = look_inside(detector, shown)
    explanation.save(out)
    click.echo(f"{out}: {explanation.why_empty or explanation.detections.summary()}")


def _record_of(image: Path, dataset: "DetectionDataset") -> "Record":
    """Return the record of an image file, found by its path, or else by its name alone.

    Raises:
        ValueError: if there is none, or several of that name.
    """
    resolved = image.resolve()
    named = [record for record in dataset if Path(record.path).name == image.name]
    found = [record for record in named if Path(record.path).resolve() == resolved] or named
    if len(found) != 1:
        has = f"{len(found)} images" if found else "no image"
        raise ValueError(f"{dataset.name or '--data'} has {has} of the name {image.name}")
    return found[0]
