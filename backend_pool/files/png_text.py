"""Puts the user's own prompt back into a PNG that a backend wrote from a rewritten one. No I/O.

SaveImage stores the executed prompt as a tEXt chunk named `prompt`; ours carries content-addressed input names and a
prefix with the user in it, which must not show when the picture is dragged into a canvas.
"""

import struct
import zlib
from collections.abc import Callable

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def text_chunk(keyword: str, text: str) -> bytes:
    """A tEXt chunk; `text` must be ASCII (json.dumps escapes the rest)."""
    body = keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    return struct.pack(">I", len(body)) + b"tEXt" + body + struct.pack(">I", zlib.crc32(b"tEXt" + body))


def replace_prompt(head: bytes, own: Callable[[str], str | None]) -> tuple[bytes, int] | None:
    """Rewrite the `prompt` chunk in the chunks before the image data with what `own` makes of its text, if anything.

    `head` is the beginning of the file. Returns the new beginning and how many bytes of `head` it replaces; None when
    this is no PNG or holds nothing to rewrite within `head`.
    """
    if not head.startswith(SIGNATURE):
        return None
    position, out, found = len(SIGNATURE), [SIGNATURE], False
    while position + 12 <= len(head):
        length = struct.unpack_from(">I", head, position)[0]
        kind = head[position + 4 : position + 8]
        end = position + 12 + length
        if kind == b"IDAT" or end > len(head):
            break
        text = None
        if kind == b"tEXt" and head[position + 8 : position + 15] == b"prompt\0":
            text = own(head[position + 15 : end - 4].decode("latin-1"))
        out.append(head[position:end] if text is None else text_chunk("prompt", text))
        found = found or text is not None
        position = end
    return (b"".join(out), position) if found else None
