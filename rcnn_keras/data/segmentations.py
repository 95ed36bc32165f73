"""COCO's two ways to write a mask down: polygons, and run lengths (RLE)."""

from typing import Any


def malformed(segmentation: Any, size: tuple[int, int]) -> tuple[str, Any] | None:
    """Return what keeps a segmentation from being a mask of its image, None if nothing does.

    Polygons are a list of lists x1, y1, x2, y2, .. of at least three points in finite numbers. An
    RLE is a dict of `size`, the image's height and width, and `counts`: run lengths that add up to
    the image, or the text or bytes into which pycocotools packs them.

    Returns:
        The field at fault, such as `segmentation.0` for the first polygon, and its value.
    """
    if isinstance(segmentation, list):
        if not segmentation:
            return "segmentation", segmentation
        for index, polygon in enumerate(segmentation):
            if not _is_polygon(polygon):
                return f"segmentation.{index}", polygon
        return None
    if not isinstance(segmentation, dict):
        return "segmentation", segmentation
    stated = segmentation.get("size", "missing")
    if not isinstance(stated, list | tuple) or tuple(stated) != tuple(size):
        return "segmentation.size", stated
    if "counts" not in segmentation:
        return "segmentation.counts", "missing"
    counts = segmentation["counts"]
    return None if _are_counts(counts, size[0] * size[1]) else ("segmentation.counts", counts)


def _is_polygon(points: Any) -> bool:
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and set(map(type, points)) <= {int, float}
        and all(abs(number) < 1e30 for number in points)  # finite in float32, and no NaN
    )


def _are_counts(counts: Any, pixels: int) -> bool:
    if isinstance(counts, list):
        runs = set(map(type, counts)) <= {int} and all(run >= 0 for run in counts)
        return runs and sum(counts) == pixels
    return isinstance(counts, str | bytes) and len(counts) > 0
