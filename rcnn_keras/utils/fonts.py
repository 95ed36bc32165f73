"""A font that has the characters of class names, in whatever script they are written."""

import io
import string
import warnings
from collections.abc import Iterable
from functools import cache
from os import PathLike
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
PREFERRED = ("DejaVuSans.", "NotoSans-Regular", "NotoSansCJK-Regular", "NotoSans")
ASCII = frozenset(string.ascii_letters + string.digits)
NO_FONTS = ("LastResort", "STIXNonUni")  # of boxes with numbers, and of other characters


def font_for(texts: Iterable[str], size: int, font: str | PathLike[str] | None = None) -> Font:
    """Return a font of a size in pixels that has the characters of some texts.

    It is Pillow's own where that has them all, otherwise the one of the system's fonts that has
    most of them.

    Args:
        texts: what is to be written.
        size: of the font, in pixels.
        font: file of a font (TTF, OTF or TTC) to take instead.

    Raises:
        ValueError: if `font` is not a font that can be read.

    Warns:
        UserWarning: once for each set of characters that no font has.
    """
    if font is not None:
        try:
            return ImageFont.truetype(str(font), size)
        except OSError as error:
            raise ValueError(f"font {font} cannot be read: {error}") from error
    default = _default_font(size)
    characters = _special(texts)
    if not characters or not isinstance(default, ImageFont.FreeTypeFont):
        return default
    if characters <= _default_characters():
        return default
    path = _best_font(characters)
    return default if path is None else _system_font(path, size)


def families_for(text: str) -> list[str]:
    """Return the font families with which matplotlib writes a text, the later for what is lacking.

    Warns:
        UserWarning: as `font_for`.
    """
    from matplotlib import font_manager, rcParams

    families = list(rcParams["font.family"])
    main = font_manager.findfont(font_manager.FontProperties(family=families))
    characters = _special([text]) - _characters(main)
    path = _best_font(characters) if characters else None
    if path is None:
        return families
    if path not in [entry.fname for entry in font_manager.fontManager.ttflist]:
        font_manager.fontManager.addfont(path)
    return [*families, font_manager.FontProperties(fname=path).get_name()]


def _special(texts: Iterable[str]) -> frozenset[str]:
    """Return the characters of texts that not every font has."""
    return frozenset(c for c in "".join(texts) if not c.isascii() and not c.isspace())


@cache
def _default_font(size: int) -> Font:
    return ImageFont.load_default(size=size)


@cache
def _system_font(file: str, size: int) -> Font:
    return ImageFont.truetype(file, size)


@cache
def _best_font(characters: frozenset[str]) -> str | None:
    """Return the file of the system's font that has most characters; warn of those it lacks.

    Of several, one that has the letters and digits of ASCII, as of scores beside the names.
    """
    from matplotlib import font_manager

    files = dict.fromkeys(entry.fname for entry in font_manager.fontManager.ttflist)
    files |= dict.fromkeys(font_manager.findSystemFonts())
    best, lacking = None, characters - _default_characters()
    least = (len(lacking), 0)
    for file in sorted(files, key=_rank):
        has = _characters(file)
        count = (len(characters - has), len(ASCII - has))
        if count < least:
            best, lacking, least = file, characters - has, count
        if least == (0, 0):
            break
    if lacking:
        shown = " ".join(sorted(lacking)[:20])
        warnings.warn(
            f"no font of this system has {shown!a}: install one, such as Noto Sans of the script, "
            f"or give its file to draw (font=) or rcnn detect (--font)",
            stacklevel=4,
        )
    return best


def _rank(file: str) -> tuple[int, str]:
    name = Path(file).name
    place = [name.startswith(start) for start in PREFERRED]
    return (place.index(True) if any(place) else len(PREFERRED), name)


@cache
def _characters(file: str) -> frozenset[str]:
    """Return the characters of a font file; none where it cannot be read or is another format."""
    from matplotlib.ft2font import FT2Font

    if Path(file).name.startswith(NO_FONTS):
        return frozenset()
    try:
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):  # of fonts that matplotlib cannot read there are some
        return frozenset()


@cache
def _default_characters() -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    default = ImageFont.load_default(size=12)
    assert isinstance(default, ImageFont.FreeTypeFont)
    return frozenset(map(chr, FT2Font(io.BytesIO(default.font_bytes)).get_charmap()))
