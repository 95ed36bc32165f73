"""The exported detector from outside: no Keras, no rcnn_keras, messages as a server gets them."""

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).parent
CLIENT = HERE.parents[1] / "examples" / "serving_client.py"


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of_size(width, height):
    """The start of a PNG, which is all that states its size."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02"


def jpeg_of_size(width, height):
    """A small JPEG whose header states another size."""
    data = encoded(Image.new("RGB", (16, 16)), "JPEG")
    place = data.index(b"\xff\xc0") + 5  # behind the marker, the length and the bits
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


@pytest.fixture(scope="module")
def answers(exported, images, tmp_path_factory):
    """What the process of `tensorflow_alone.py` answered."""
    folder = tmp_path_factory.mktemp("files")
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    (folder / "bad").mkdir()
    picture = Image.fromarray(images["a"])
    frames = [Image.fromarray(images["a"] // (i + 1)) for i in range(3)]
    bad = {
        "text": b"not an image at all",
        "nothing": b"",
        "truncated.jpg": encoded(picture, "JPEG")[:600],
        "truncated.png": encoded(picture, "PNG")[:600],
        "header.png": encoded(picture, "PNG")[:12],
        "animated.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "large.png": png_of_size(20000, 20000),
        "huge.png": png_of_size(2**31 + 5, 2**31 + 5),
        "large.jpg": jpeg_of_size(20000, 20000),
        "one pixel.png": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
        "gray.png": encoded(picture.convert("L"), "PNG"),
    }
    for name, data in bad.items():
        (folder / "bad" / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, HERE / "tensorflow_alone.py", exported, folder, CLIENT],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "answers.json").read_text())


def assert_is(answer, place, expected):
    """Compare one image of a batch of outputs with `detect`."""
    count = answer["num_detections"][place]
    assert count == len(expected) > 2
    np.testing.assert_array_equal(answer["labels"][place][:count], expected.labels)
    np.testing.assert_allclose(answer["boxes"][place][:count], expected.boxes, atol=1e-3)
    np.testing.assert_allclose(answer["scores"][place][:count], expected.scores, atol=1e-5)
    np.testing.assert_allclose(answer["masks"][place][:count], expected.masks, atol=1e-4)


def test_a_process_without_keras_serves_it(answers):
    assert answers["imported"] == []
    assert {"serving_default", "image_bytes"} <= set(answers["signatures"])


def test_requests_of_pixels_give_what_detect_gives(answers, detected):
    assert_is(answers["pixels"], 0, detected["a"])


def test_a_batch_gives_what_its_images_give_alone(answers, model, images):
    for place in range(8):
        alone = model.detect(np.roll(images["a"], 9 * place, axis=0))[0]
        assert_is(answers["eight"], place, alone)


def test_requests_of_files_give_what_detect_gives_in_one_batch(answers, model, images):
    expected = model.detect(list(images.values()), batch_size=len(images))
    for place in range(len(images)):
        assert_is(answers["files"], place, expected[place])


@pytest.mark.parametrize("form", ["rows", "named rows", "pixel rows"])
def test_row_requests_get_the_detections(answers, form, detected):
    (row,) = answers["rest"][form]["predictions"]
    assert_is({key: [value] for key, value in row.items()}, 0, detected["a"])


@pytest.mark.parametrize("form", ["columns", "a column"])
def test_column_requests_get_the_detections(answers, form, detected):
    assert_is(answers["rest"][form]["outputs"], 0, detected["a"])


def test_warm_up_log_has_a_request_of_each_signature(answers):
    assert sorted(answers["warm_up"]) == ["image_bytes", "serving_default"]


def test_client_prints_the_detections(answers, model, images):
    lines = answers["client"].splitlines()
    expected = model.detect([images["a"], images["b"]], batch_size=2)
    assert len(lines) == sum(map(len, expected))
    first = expected[0]
    assert f"a.png: class {first.labels[0]}, score {first.scores[0]:.3f}, " in lines[0]
    corners = [float(number) for number in lines[0].split()[-4:]]
    np.testing.assert_allclose(corners, first.boxes[0], atol=0.051)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("text", "[image] [0] [of the batch is neither JPEG nor PNG"),
        ("nothing", "neither JPEG nor PNG; bytes:] [0]"),
        ("header.png", "neither JPEG nor PNG; bytes:] [12]"),
        ("animated.gif", "neither JPEG nor PNG"),
        ("truncated.jpg", "Invalid JPEG data"),
        ("truncated.png", "Invalid PNG data"),
        ("large.png", "more than the limit of 178956970; height and width:] [20000 20000]"),
        ("large.jpg", "more than the limit of 178956970; height and width:] [20000 20000]"),
        ("huge.png", "more than the limit of 178956970"),
        ("one of three", "[image] [2] [of the batch is neither JPEG nor PNG"),
        ("no files", "a batch without images"),
        ("no images", "a batch without images"),
        ("no pixels", "images without pixels; height and width:] [0 90]"),
    ],
)
def test_bad_input_is_a_clear_error(answers, case, message):
    assert message in (answers["errors"][case] or "no error")


@pytest.mark.parametrize("case", ["one pixel.png", "gray.png"])
def test_unusual_images_are_no_error(answers, case):
    assert answers["errors"][case] is None
