"""Class names in scripts that Pillow's own font lacks."""

import warnings

import numpy as np
import pytest
from matplotlib import get_data_path

from rcnn_keras.data.detections import Detections
from rcnn_keras.utils import fonts
from rcnn_keras.utils.fonts import font_for
from rcnn_keras.visualize import draw

DEJAVU = f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf"
NOWHERE = "\U000f1234"  # of the private use area


def picture_of(name, **options):
    box = np.float32([[4, 60, 90, 110]])
    found = Detections(box, np.float32([0.9]), np.int32([0]), [name], (120, 240))
    return np.asarray(draw(np.zeros((120, 240, 3), np.uint8), found, **options))


def test_pillows_own_font_writes_what_it_has():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert font_for(["cat", "dog 2"], 12).getname() == ("Aileron", "Regular")


def test_a_font_of_the_system_writes_the_rest():
    """Matplotlib brings DejaVu Sans, which has Armenian."""
    font = font_for(["\u0540\u0561\u0575"], 12)
    assert font.getname()[0] != "Aileron"
    assert not np.array_equal(picture_of("\u0540\u0561\u0575"), picture_of("\u0561\u0561\u0561"))


def test_characters_that_no_font_has_are_named_once():
    fonts._best_font.cache_clear()
    with pytest.warns(UserWarning, match=r"no font of this system has '\\U000f1234': install one"):
        picture_of(f"a{NOWHERE}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture_of(f"b{NOWHERE}")


def test_a_font_that_is_given_is_taken(tmp_path):
    assert font_for(["cat"], 12, DEJAVU).getname()[0] == "DejaVu Sans"
    assert not np.array_equal(picture_of("cat", font=DEJAVU), picture_of("cat"))
    (tmp_path / "text.ttf").write_text("no font")
    with pytest.raises(ValueError, match=r"text\.ttf cannot be read"):
        picture_of("cat", font=tmp_path / "text.ttf")
