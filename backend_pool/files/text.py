"""Puts the user's own prompt into files of any format, in place: the text keeps its length, so nothing else moves.

A backend's prompt stands in files as JSON (WebP, FLAC, MP3, MP4, WebM, SVG, APNG's `comf`), or as JSON text within JSON
(safetensors, GLB, what VideoHelperSuite writes). The user's is shorter, and JSON may end in spaces. Checksums that
cover it are made anew. Only the beginning and the end of a file are looked at. Blocking.
"""

import json
import re
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backend_pool.files.own_prompt import OwnPrompt
from backend_pool.files.png_text import SIGNATURE, replace_prompt
from backend_pool.files.user_files import disk_error, version_of
from proxy.base.file_owner import as_owner_of
from proxy.base.user_file_open import create_file, open_file, remove_file

PNG_HEAD = 16 * 1024 * 1024
WINDOW = 8 * 1024 * 1024
MOST = 20
"""Prompts that are looked at in one window."""

PROMPT = re.compile(rb'\{\\?"[^"\\]{1,100}\\?": ?\{\\?"(?:inputs|class_type|_meta|is_changed)\\?":')
PLAIN_END = re.compile(rb"[^\x20-\x7e]")

MATROSKA, OGG = b"\x1a\x45\xdf\xa3", b"OggS"
TAGS, TAGS_CRC = b"\x12\x54\xc3\x67", b"\xbf\x84"

Span = tuple[int, bytes]
"""Where in a window, and what to write there."""


def restore_prompt(root: Path, path: Path, own: OwnPrompt) -> None:
    """Put the user's own prompt wherever a file below their directory `root` carries ours; other files stay as they
    are. Raises DiskFull."""
    try:
        _restore_head(root, path, own)
        _restore_in_place(root, path, own)
    except OSError as error:
        raise disk_error(error) from error


def _restore_head(root: Path, path: Path, own: OwnPrompt) -> None:
    """A PNG's text chunks may change their length."""
    with open_file(root, path) as content:
        if content.read(len(SIGNATURE)) != SIGNATURE:
            return
        content.seek(0)
        replaced_head = replace_prompt(content.read(PNG_HEAD), own.text_of)
        if replaced_head is None:
            return
        head, position = replaced_head
        content.seek(position)
        swapped = path.with_name(f"{path.name}x")
        try:
            with create_file(root, swapped) as out:
                out.write(head)
                shutil.copyfileobj(content, out)
            with as_owner_of(root):
                swapped.replace(path)
        except OSError:
            remove_file(root, swapped)
            raise


def _restore_in_place(root: Path, path: Path, own: OwnPrompt) -> None:
    with open_file(root, path, change=True) as file:
        size = version_of(file)[0]
        starts = [0] if size <= WINDOW else [0, max(WINDOW, size - WINDOW)]
        magic = file.read(8)
        for start in starts:
            file.seek(start)
            window = bytearray(file.read(WINDOW))
            spans = list(_replacements(bytes(window), own))
            for position, text in spans:
                window[position : position + len(text)] = text
            for position, text in spans + [fix for span in spans for fix in _checksums(window, span[0], magic)]:
                file.seek(start + position)
                file.write(text)


def _replacements(window: bytes, own: OwnPrompt) -> Iterator[Span]:
    end = 0
    for count, match in enumerate(PROMPT.finditer(window)):
        position = match.start()
        if count >= MOST or position < end:
            continue
        quoted = window[position - 1 : position] == b'"' and b'\\"' in match[0]
        position -= quoted
        found = _found(window, position)
        if found is None:
            continue
        value, length = found
        text = _own_text(value, own, length, quoted=quoted)
        if text is not None:
            end = position + length
            yield position, text


def _found(window: bytes, position: int) -> tuple[Any, int] | None:
    """The JSON value at a place, and its length. Values of ours are ASCII."""
    stop = PLAIN_END.search(window, position)
    text = window[position : stop.start() if stop else len(window)].decode("ascii")
    try:
        value, length = json.JSONDecoder().raw_decode(text)
        return (json.loads(value) if isinstance(value, str) else value), length
    except (ValueError, RecursionError):
        return None


def _own_text(value: Any, own: OwnPrompt, length: int, *, quoted: bool) -> bytes | None:
    """The user's form in exactly `length` bytes; None when it is none of ours or cannot fit."""
    prompt = own.of(value)
    if prompt is None:
        return None
    for separators in ((", ", ": "), (",", ":")):
        text = json.dumps(prompt, separators=separators)
        text = json.dumps(text) if quoted else text
        if len(text) <= length:
            return text.ljust(length).encode("ascii")
    return None


def _checksums(window: bytearray, position: int, magic: bytes) -> Iterator[Span]:
    """The checksums around a changed place, in formats that have some there."""
    if magic == SIGNATURE:
        yield from _png_chunk(window, position)
    elif magic.startswith(OGG):
        yield from _ogg_page(window, position)
    elif magic.startswith(MATROSKA):
        yield from _matroska_tags(window, position)


def _png_chunk(window: bytearray, position: int) -> Iterator[Span]:
    for kind in (b"comf", b"iTXt", b"tEXt"):
        at = window.rfind(kind, max(0, position - 200), position)
        if at >= 4:
            (length,) = struct.unpack_from(">I", window, at - 4)
            end = at + 4 + length
            if position < end <= len(window) - 4:
                yield end, struct.pack(">I", zlib.crc32(window[at:end]))


def _matroska_tags(window: bytearray, position: int) -> Iterator[Span]:
    at = window.rfind(TAGS, 0, position)
    if at < 0:
        return
    width = 9 - window[at + 4].bit_length()
    size = int.from_bytes(window[at + 4 : at + 4 + width], "big") & ((1 << 7 * width) - 1)
    body = at + 4 + width
    if window[body : body + 2] == TAGS_CRC and position < body + size <= len(window):
        yield body + 2, struct.pack("<I", zlib.crc32(window[body + 6 : body + size]))


def _ogg_page(window: bytearray, position: int) -> Iterator[Span]:
    at = window.rfind(OGG, 0, position)
    if at < 0:
        return
    segments = window[at + 27 : at + 27 + window[at + 26]]
    page = bytearray(window[at : at + 27 + len(segments) + sum(segments)])
    page[22:26] = bytes(4)
    yield at + 22, struct.pack("<I", _ogg_crc(page))


def _ogg_crc(page: bytes | bytearray) -> int:
    """CRC-32 with the usual polynomial, the other way round than zlib's."""
    crc = 0
    for byte in page:
        crc = (crc << 8) & 0xFFFFFFFF ^ OGG_TABLE[(crc >> 24) ^ byte]
    return crc


def _ogg_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1) & 0xFFFFFFFF ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value)
    return tuple(table)


OGG_TABLE = _ogg_table()
