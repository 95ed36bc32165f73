"""Images of more than 8 bits."""

import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.data import ImageError, read_image, tfrecord, value_range
from rcnn_keras.data.inputs import input_batches, unlabelled
from rcnn_keras.data.pipeline import check_packed
from rcnn_keras.export.served_detector import decode_image

RNG = np.random.default_rng(0)
TWELVE_BITS = RNG.integers(200, 4000, (20, 30), np.uint16)
COLOURS = RNG.integers(200, 4000, (20, 30, 3), np.uint16)
RANGES = ["max", "percentiles", 4095, (200, 3000), 1023.5]


def expected(values, chosen):
    values = values.astype(float)
    if chosen == "max":
        low, high = 0, values.max()
    elif chosen == "percentiles":
        ordered = np.sort(values.ravel())
        low, high = (ordered[round((len(ordered) - 1) * p)] for p in (0.005, 0.995))
    else:
        low, high = chosen if isinstance(chosen, tuple) else (0, chosen)
    return np.clip((values - low) / (high - low), 0, 1) * 255


def read(*paths):
    return [read_image(path) for path in paths]


def save(path, values):
    if values.ndim == 2:
        Image.fromarray(values).save(path)
    else:
        path.write_bytes(tf.io.encode_png(values).numpy())
    return path


@pytest.fixture
def not_warned(monkeypatch):
    monkeypatch.setattr(value_range, "_warned", False)


@pytest.mark.parametrize("chosen", RANGES)
@pytest.mark.parametrize("name", ["gray.png", "gray.tiff", "colour.png", "array"])
def test_values_are_scaled_by_the_range(tmp_path, chosen, name):
    values = COLOURS if name == "colour.png" else TWELVE_BITS
    source = values if name == "array" else save(tmp_path / name, values)
    image = read_image(source, chosen)
    rgb = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)
    assert np.abs(image - expected(rgb, chosen)).max() <= 0.501
    assert (image.max() == 255) == (chosen != 4095)


@pytest.mark.parametrize("chosen", RANGES)
@pytest.mark.parametrize("values", [TWELVE_BITS, COLOURS], ids=["gray", "colour"])
def test_files_in_an_exported_graph_have_the_same_pixels(tmp_path, chosen, values):
    path = save(tmp_path / "a.png", values)
    decode = tf.function(lambda content: decode_image(content, tf.constant(0), chosen))
    found = decode(tf.constant(path.read_bytes())).numpy()
    np.testing.assert_array_equal(found, read_image(path, chosen))


@pytest.mark.parametrize("chosen", RANGES)
def test_images_of_8_bits_stay_as_they_are(tmp_path, chosen):
    pixels = RNG.integers(0, 100, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", chosen), pixels)
    np.testing.assert_array_equal(read_image(pixels, chosen), pixels)
    graph = decode_image(tf.constant((tmp_path / "a.png").read_bytes()), tf.constant(0), chosen)
    np.testing.assert_array_equal(graph, pixels)


def test_float_and_32_bit_files_have_a_range_too(tmp_path):
    for dtype in (np.float32, np.int32):
        values = TWELVE_BITS.astype(dtype)
        Image.fromarray(values).save(tmp_path / "a.tiff")
        with pytest.raises(ImageError, match="not in 0"):
            read_image(tmp_path / "a.tiff")
        found = read_image(tmp_path / "a.tiff", 4095)
        assert np.abs(found[..., 0] - expected(TWELVE_BITS, 4095)).max() <= 0.501


@pytest.mark.parametrize("values", [TWELVE_BITS, COLOURS], ids=["gray", "colour"])
def test_an_unused_range_warns_once(tmp_path, not_warned, values):
    path = save(tmp_path / "a.png", values)
    with pytest.warns(UserWarning, match=r"a\.png: its 16-bit values .* of 255.*=4095") as caught:
        read(path, path, path)
    assert len(caught) == 1


def test_a_range_that_is_used_or_given_does_not_warn(tmp_path, not_warned):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(save(tmp_path / "a.png", (TWELVE_BITS * 16).astype(np.uint16)))
        read_image(save(tmp_path / "b.png", TWELVE_BITS), "max")
        read_image(np.zeros((4, 4), np.uint16))


@pytest.mark.parametrize("bad", ["own", 0, -5, (5, 5), (9, 1), (1, 2, 3), None, True, float("nan")])
def test_an_unknown_range_is_refused(bad):
    with pytest.raises(ValueError, match="value_range must be 'full', 'max'"):
        read_image(TWELVE_BITS, bad)
    with pytest.raises(ValueError, match="value_range must be 'full', 'max'"):
        rk.models.FasterRCNN("resnet18_fpn", classes=["owl"], value_range=bad)


def test_a_saved_model_detects_and_trains_with_its_range(tmp_path, in_process):
    path = save(tmp_path / "a.png", RNG.integers(0, 4095, (64, 64), np.uint16))
    model = rk.models.FasterRCNN(
        "resnet18_fpn",
        classes=["owl"],
        backbone_width=0.125,
        fpn_channels=16,
        box_units=32,
        min_size=64,
        max_size=64,
        value_range=(0, 4095),
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.value_range == (0, 4095)
    dataset = unlabelled([path], ["owl"])
    pixels = read_image(path, 4095)
    for batches in (loaded._sized(dataset.batches(1)), loaded._with_truth(dataset.batches(1))):
        ((inputs, _),) = batches
        np.testing.assert_array_equal(inputs["images"][0], pixels)
    for image in (path, np.asarray(Image.open(path)), Image.open(path)):
        (found,) = model.detect(image)
        (same,) = model.detect(pixels)
        np.testing.assert_array_equal(found.boxes, same.boxes)
    packed = rk.data.save_tfrecord(dataset, tmp_path / "records", engine=in_process())
    with pytest.raises(ValueError, match=r"packed as by value_range='full', and the model has"):
        loaded._sized(packed.batches(1))


@pytest.mark.parametrize("chosen", [4095, (200, 3000), "percentiles"])
def test_record_files_that_were_packed_by_a_range_train_a_model_of_it(
    tmp_path, chosen, not_warned, in_process
):
    paths = [save(tmp_path / f"{i}.png", v) for i, v in enumerate([TWELVE_BITS, COLOURS])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = unlabelled(paths, ["owl"])
        packed = rk.data.save_tfrecord(
            dataset, tmp_path / "out", value_range=chosen, engine=in_process()
        )
    for record, path in zip(packed, paths, strict=True):
        np.testing.assert_array_equal(read_image(record.image), read_image(path, chosen))
    ((inputs, _),) = rk.data.Batches(packed, 2, value_range=chosen)
    ((expected, _),) = rk.data.Batches(dataset, 2, value_range=chosen)
    np.testing.assert_array_equal(inputs["images"], expected["images"])
    for other in ("full", 1023):
        with pytest.raises(ValueError, match=r"packed as by value_range=.*rcnn data pack --value"):
            check_packed(packed, other)
    again = rk.data.save_tfrecord(dataset, tmp_path / "out", value_range=chosen)
    assert again[0].tfrecord == packed[0].tfrecord
    with pytest.raises(ValueError, match="value_range"):
        rk.data.save_tfrecord(dataset, tmp_path / "out", value_range="max")


@pytest.mark.parametrize(
    ("text", "chosen"),
    [("4095", 4095), ("200,3000", (200, 3000)), ("max", "max"), ("full", "full"), ("0", None)],
)
def test_the_range_on_the_command_line(tmp_path, rcnn, text, chosen, monkeypatch):
    given = []
    monkeypatch.setattr(sys.modules["rcnn_keras.cli.data"], "load_dataset", lambda *_, **__: [])
    monkeypatch.setattr(tfrecord, "save_tfrecord", lambda *_, **how: given.append(how) or [])
    out = tmp_path / "records"
    result = rcnn("data", "pack", tmp_path, "--out", out, "--value-range", text)
    if chosen is None:
        assert result.exit_code == 2
        assert "'0' must be 'full', 'max'" in result.output
        assert given == []
    else:
        assert given[0]["value_range"] == chosen


def test_pictures_are_drawn_by_the_range(tmp_path, not_warned):
    path = save(tmp_path / "a.png", TWELVE_BITS)
    record = unlabelled([path], ["owl"])[0]
    picture = np.asarray(rk.visualize.draw(path, record, value_range=4095))
    np.testing.assert_array_equal(picture, read_image(path, 4095))


def test_record_files_are_refused_for_a_range_that_they_no_longer_have(tmp_path, not_warned):
    path = save(tmp_path / "a.png", (TWELVE_BITS * 16).astype(np.uint16))
    packed = rk.data.save_tfrecord(unlabelled([path], ["owl"]), tmp_path / "records")
    with pytest.raises(ValueError, match=r"hold 8 bits, .*value_range=4095"):
        next(iter(rk.data.Batches(packed, 1, value_range=4095)))
    with pytest.raises(ValueError, match=r"hold 8 bits, .*value_range=4095"):
        next(input_batches(rk.data.Batches(packed, 1, value_range=4095)))
