"""`rcnn presets`."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rcnn_keras.preset_table import Preset, ShippedDetector


@click.command()
def presets() -> None:
    """List the weights that `rk.models.from_preset`, --model and the key model.preset know.

    First the small detectors that come with the package, with COCO's AP in percent on the test
    images that their cards name. Then published ones: AP is COCO's on val2017 (of detectors of
    other data sets, on those), top-1 the accuracy on ImageNet, as their authors report them.
    """
    from rcnn_keras.presets import list_presets

    header = ("NAME", "MB", "CLASSES", "BOX AP", "MASK AP", "KEYPOINT AP", "TOP-1", "LICENCE")
    rows = [header] + [
        (
            preset.name,
            str(preset.megabytes),
            str(preset.num_classes or "-"),
            *(f"{n:.1f}" if n else "-" for n in _scores(preset)),
            preset.licence,
        )
        for preset in list_presets()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *numbers, licence in rows:
        cells = [f"{n:>{width}}" for n, width in zip(numbers, widths[1:-1], strict=True)]
        click.echo("  ".join([f"{name:<{widths[0]}}", *cells, licence]))


def _scores(preset: "Preset | ShippedDetector") -> tuple[float | None, ...]:
    return preset.box_ap, preset.mask_ap, preset.keypoint_ap, preset.top1
