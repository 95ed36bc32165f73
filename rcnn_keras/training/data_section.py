"""The section `data` of a configuration: where images and ground truth are, and how they change.

The keys of `augment` are the arguments of the augmentations.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    create_model,
    model_serializer,
    model_validator,
)

from rcnn_keras.data import augmentation
from rcnn_keras.training.sections import Section, arguments_section

AUGMENTATIONS = {
    "flips": augmentation.flips,
    "scale_jitter": augmentation.scale_jitter,
    "color_jitter": augmentation.color_jitter,
    "rotation": augmentation.rotation,
    "translation": augmentation.translation,
    "erasing": augmentation.erasing,
}


def absolute(path: str, info: ValidationInfo) -> str:
    """Resolve a path against the configuration file's folder."""
    folder = (info.context or {}).get("folder", ".")
    return str(Path(folder, Path(path).expanduser()).resolve())


File = Annotated[str, AfterValidator(absolute)]


class NamedAugmentation(Section):
    """One augmentation: a mapping of its name to its parameters."""

    @model_validator(mode="after")
    def _is_one(self) -> "NamedAugmentation":
        if len(self._chosen()) != 1:
            raise ValueError("should be one augmentation, such as 'flips: {horizontal: true}'")
        self.build()
        return self

    @model_serializer
    def _only_chosen(self) -> dict[str, Any]:
        return {name: section.model_dump() for name, section in self._chosen().items()}

    def _chosen(self) -> dict[str, Section]:
        return {name: section for name, section in self if section is not None}

    def build(self) -> augmentation.Augmentation:
        """Make the augmentation."""
        ((name, section),) = self._chosen().items()
        return AUGMENTATIONS[name](**dict(section))


if TYPE_CHECKING:
    AugmentationSection = NamedAugmentation
else:
    AugmentationSection = create_model(
        "AugmentationSection",
        __base__=NamedAugmentation,
        **{name: (arguments_section(call) | None, None) for name, call in AUGMENTATIONS.items()},
    )


def _sequence(value: Any) -> Any:
    return value if isinstance(value, tuple) else (value,)


class CocoSource(Section):
    """A COCO JSON file and the folder of its images, by default where `load_coco` looks."""

    annotations: File
    images: File | None = None
    proposals: File | None = None


class VocSource(Section):
    """One split of a Pascal VOC folder."""

    root: File
    split: str = "train"
    proposals: File | None = None


class RecordSource(Section):
    """A folder of record files, as `rcnn data pack` writes it."""

    root: File
    proposals: File | None = None


class DataSection(Section):
    """What every format shares, and all ways to train."""

    classes: tuple[str, ...] | None = None
    max_proposals: int = Field(default=2000, ge=1)
    check_images: bool = True


class BatchSection(DataSection):
    """What `fit` needs beside: how images come together."""

    batch_size: int = Field(default=2, ge=1)
    augment: tuple[AugmentationSection, ...] = ()
    shuffle: Literal["images", "shards"] = "images"
    max_objects: int | None = Field(default=None, ge=1)


class CocoFiles(Section):
    """COCO JSON; several files for one part are joined."""

    format: Literal["coco"]
    train: Annotated[tuple[CocoSource, ...], BeforeValidator(_sequence), Field(min_length=1)]
    val: Annotated[tuple[CocoSource, ...], BeforeValidator(_sequence), Field(min_length=1)]


class VocSplits(Section):
    """Pascal VOC; several splits for one part are joined."""

    format: Literal["voc"]
    train: Annotated[tuple[VocSource, ...], BeforeValidator(_sequence), Field(min_length=1)]
    val: Annotated[tuple[VocSource, ...], BeforeValidator(_sequence), Field(min_length=1)]


class RecordFolders(Section):
    """Record files; several folders for one part are joined."""

    format: Literal["records"]
    train: Annotated[tuple[RecordSource, ...], BeforeValidator(_sequence), Field(min_length=1)]
    val: Annotated[tuple[RecordSource, ...], BeforeValidator(_sequence), Field(min_length=1)]


class CocoData(CocoFiles, DataSection):
    """COCO data of which windows are cut."""


class VocData(VocSplits, DataSection):
    """Pascal VOC data of which windows are cut."""


class RecordData(RecordFolders, DataSection):
    """Record files of which windows are cut."""


class CocoBatches(CocoFiles, BatchSection):
    """COCO data in batches."""


class VocBatches(VocSplits, BatchSection):
    """Pascal VOC data in batches."""


class RecordBatches(RecordFolders, BatchSection):
    """Record files in batches."""


AnyData = CocoData | VocData | RecordData | CocoBatches | VocBatches | RecordBatches
