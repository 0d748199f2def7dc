"""UTF-8 text of files and of standard input.

Editors and shells on Windows write a byte order mark, or UTF-16. The mark is removed. UTF-16 is
refused with an error that names it.
"""

import codecs
import json

__all__ = ["NotUtf8", "decode_utf8"]


class NotUtf8(ValueError):
    """Bytes that are not UTF-8. The text is a predicate: `is UTF-16 text, and must be UTF-8`."""


def decode_utf8(data: bytes) -> str:
    """Return the text without a byte order mark.

    Raises:
        NotUtf8: The bytes are in another encoding, or one of them is invalid.
    """
    # The function looks at byte order marks, and at the positions of zeros in the first 4 bytes.
    encoding = json.detect_encoding(data)
    if not encoding.startswith("utf-8"):
        raise NotUtf8(f"is {encoding[:6].upper()} text, and must be UTF-8. Save it as UTF-8")
    start = len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0
    try:
        return data[start:].decode()
    except UnicodeDecodeError as error:
        raise NotUtf8(
            f"is not UTF-8 text, because the byte at offset {start + error.start} is invalid. "
            "Save it as UTF-8"
        ) from None
