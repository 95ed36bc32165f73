"""Class names in scripts that Pillow's own font lacks."""

import warnings

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager, get_data_path
from PIL import Image

from rcnn_keras.data.detections import Detections
from rcnn_keras.evaluation.report.plots import plot_confusion
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


def write_font(path, name, characters):
    """Write a font whose characters are all the same full square."""
    pen = TTGlyphPen(None)
    for place, (x, y) in enumerate([(0, 0), (0, 1000), (1000, 1000), (1000, 0)]):
        (pen.lineTo if place else pen.moveTo)((x, y))
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(character): "square" for character in characters})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def fonts_of_two_scripts(tmp_path, monkeypatch):
    """A system with two more fonts, each of one character that no other has."""
    one, other = "\U000f2001", "\U000f2002"
    write_font(tmp_path / "one.ttf", "Script One", one)
    write_font(tmp_path / "other.ttf", "Script Other", other + "0123456789.")
    files = [str(path) for path in tmp_path.glob("*.ttf")]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: files)
    before = list(font_manager.fontManager.ttflist)
    fonts._best_font.cache_clear()
    yield one, other
    fonts._best_font.cache_clear()
    font_manager.fontManager.ttflist[:] = before


def test_each_name_has_the_font_of_its_script(fonts_of_two_scripts):
    """One font for all names would show one of them as empty boxes."""
    boxes = np.float32([[4, 40, 90, 50], [4, 90, 90, 110]])
    scores, labels = np.float32([0.9, 0.8]), np.int32([0, 1])
    found = Detections(boxes, scores, labels, list(fonts_of_two_scripts), (120, 240))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(np.zeros((120, 240, 3), np.uint8), found)
        families = [font_for([c, f"{c} 0.9"], 12).getname()[0] for c in fonts_of_two_scripts]
    assert families == ["Script One", "Script Other"]


def test_charts_have_names_in_any_script(fonts_of_two_scripts, tmp_path):
    counts = np.eye(2, dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_confusion(tmp_path / "named.png", counts, list(fonts_of_two_scripts))
        plot_confusion(tmp_path / "blank.png", counts, [" ", " "])
    named, blank = (np.asarray(Image.open(tmp_path / f"{n}.png")) for n in ("named", "blank"))
    assert not np.array_equal(named, blank)


def test_charts_name_characters_that_no_font_has_once(tmp_path):
    fonts._best_font.cache_clear()
    names = [f"a{NOWHERE}", "b"]
    with pytest.warns(UserWarning, match=r"no font of this system has '\\U000f1234'") as caught:
        plot_confusion(tmp_path / "light.png", np.eye(2, dtype=int), names)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot_confusion(tmp_path / "dark.png", np.eye(2, dtype=int), names)
