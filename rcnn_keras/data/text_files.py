"""Text files in the encodings that other systems write."""

import codecs
import re

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16's does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# In single bytes, so that one of two or four bytes is not meant.
DECLARED = re.compile(rb"<\?xml[^>]*encoding\s*=\s*[\"'](?!utf-?(?:16|32))([\w.-]+)", re.IGNORECASE)


def decode_text(content: bytes) -> tuple[str, str]:
    """Return the text of a file and the encoding that it was read in.

    That is the one of its byte order mark, or that an XML file declares, or else UTF-8; where the
    bytes are none of it, Windows' of Western Europe, which holds all of Latin-1.
    """
    declared = DECLARED.match(content.lstrip())
    marked = [encoding for mark, encoding in MARKS.items() if content.startswith(mark)]
    encodings = [*marked, *([declared[1].decode("ascii")] if declared else []), "utf-8", "cp1252"]
    for encoding in encodings:
        try:
            return content.decode(encoding), encoding
        except (UnicodeError, LookupError):  # LookupError: there is no such encoding
            continue
    return content.decode("latin-1"), "latin-1"  # which has a character for each byte
