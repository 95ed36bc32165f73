"""Scores on the terminal."""

import math
from collections.abc import Mapping

import click


def print_scores(scores: Mapping[str, float | None]) -> None:
    """Print a line for each score, in 0..1; None and NaN are scores over no ground truth."""
    width = max(map(len, scores))
    for name, value in scores.items():
        shown = "no ground truth" if value is None or math.isnan(value) else f"{value:.3f}"
        click.echo(f"{name:<{width}}  {shown}")
