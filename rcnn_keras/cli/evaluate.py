"""`rcnn evaluate`."""

from pathlib import Path
from typing import Literal

import click

from rcnn_keras.cli.common import (
    format_of_data,
    load_dataset,
    must_be_a_model,
    must_exist,
    object_options,
    print_scores,
    quiet_import,
)
from rcnn_keras.utils.output_paths import check_output_folder


@click.command()
@click.argument("model")
@click.option(
    "--data",
    "annotations",
    required=True,
    type=click.Path(path_type=Path),
    help="COCO JSON file, or Pascal VOC folder.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images of a COCO file.  [default: the file's folder]",
)
@click.option("--split", help="Split of a VOC folder.  [default: test, or all if it has none]")
@click.option(
    "--proposals",
    type=click.Path(path_type=Path),
    help="File that `rcnn proposals` wrote, for models that find none.",
)
@click.option("--batch-size", default=1, show_default=True, type=click.IntRange(1))
@click.option(
    "--protocol",
    default="coco",
    show_default=True,
    type=click.Choice(["coco", "voc07", "voc"]),
    help="Whose scores: COCO's, Pascal VOC 2007's (11 points), or VOC's from 2010 on (area).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for scores.json, detections.json, errors.json and report.html.",
)
@object_options
def evaluate(
    model: str,
    annotations: Path,
    images: Path | None,
    split: str | None,
    proposals: Path | None,
    batch_size: int,
    protocol: Literal["coco", "voc07", "voc"],
    out: Path | None,
    crowd: str,
    without_mask: str,
) -> None:
    """Score a trained MODEL on annotated images, as the COCO challenge or Pascal VOC does.

    MODEL is a name that `rcnn presets` lists, or a .keras file.

    \b
    Example:
      rcnn evaluate runs/first/best.keras --data data/bccd/test.json --images data/bccd/images

    The report in --out also counts the kinds of errors: duplicates, bad localisation, wrong
    classes, false alarms on background and missed objects, with a confusion matrix and the worst
    cases as pictures.
    """
    must_be_a_model(model)
    must_exist(annotations, "annotations")
    if out is not None:
        check_output_folder(out)
    with quiet_import():
        from rcnn_keras.data.voc_folders import voc_splits
        from rcnn_keras.presets import from_preset
        from rcnn_keras.proposals.proposal_file import read_into
        from rcnn_keras.runs.scoring import evaluate as score
        from rcnn_keras.training.callbacks import coco_scores, summary_of
    is_voc = format_of_data(annotations, images, split) == "voc"
    if split is None and is_voc and voc_splits(str(annotations)) != [None]:
        split = "test"
    detector = from_preset(model)
    rules = {"crowd": crowd, "without_mask": without_mask}
    dataset = load_dataset(annotations, images, split, detector.classes, **rules)
    if detector.takes_proposals != (proposals is not None):
        raise click.UsageError(
            f"{model} needs --proposals: rcnn proposals {annotations} --out FILE"
            if detector.takes_proposals
            else f"{model} finds its own proposals: --proposals {proposals} is not for it"
        )
    if proposals is not None:
        dataset = read_into(dataset, proposals)
    if out is None and protocol == "coco":  # of any number of images, in little memory
        print_scores(summary_of(coco_scores(detector, dataset, batch_size=batch_size)))
        return
    evaluation = score(detector, dataset, batch_size=batch_size, protocol=protocol)
    if out is not None:  # before a pipe that may be closed
        command = f"rcnn evaluate {model} --data {annotations} --protocol {protocol}"
        evaluation.write(out, title=f"{Path(model).name} on {dataset.name}", command=command)
    print_scores(evaluation.summary())
