"""What an annotation file states, before anything is compared with the images."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Object:
    """An object as the annotation file states it, its box `xyxy` in finite numbers."""

    id: str
    field: str
    value: Any
    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    segmentation: Any = None
    area: float | None = None
    difficult: bool = False


@dataclass(slots=True)
class Entry:
    """An image as the annotation file states it; `size` is height and width, None if missing."""

    image_id: int
    file: str
    id: str
    path: str
    size: tuple[int, int] | None
    objects: list[Object] = field(default_factory=list)
