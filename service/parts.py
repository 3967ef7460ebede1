"""How many parts a file has, before anybody looks at each.

Pillow walks over the segments of a JPEG, the chunks of a PNG and the blocks of a GIF in Python: 20 MB of nothing but
such parts would keep it, and all other threads, for many seconds. A progressive JPEG of many scans does the same to
libjpeg, which goes over all of the picture for each. An image has a few of each; profiles and metadata some hundred.
"""

from __future__ import annotations

from service.errors import InvalidImage

MOST = 1000
"""Most parts before the pixels."""
MOST_SCANS = 64
"""Most scans of a JPEG; the usual progressive one has 10."""
PIXEL_BYTES = 1024
"""Parts that hold pixels may be this small on average; the usual ones of a PNG are 8 times as large."""

_PNG, _GIF, _JPEG = b"\x89PNG\r\n\x1a\n", b"GIF8", b"\xff\xd8"
_SCAN, _PROGRESSIVE = b"\xff\xda", 0xC2
_ALONE = frozenset((0x00, 0x01, *range(0xD0, 0xDA), 0xFF))
"""Bytes that, behind 0xFF, begin no segment with a length (ITU-T T.81, table B.1), or are no marker at all."""
_EXTENSION, _FRAME, _END = 0x21, 0x2C, 0x3B


def check(data: bytes) -> None:
    """Raise InvalidImage where a JPEG, PNG or GIF has too many parts; others are left alone."""
    if data.startswith(_JPEG):
        _check_jpeg(data)
    elif data.startswith(_PNG):
        _check_png(data)
    elif data.startswith(_GIF):
        _check_gif(data)


def many_scans(data: bytes) -> bool:
    """Whether a JPEG has more scans than MOST_SCANS."""
    return data.count(_SCAN) > MOST_SCANS  # among coded pixels, 0xFF is never followed by a marker's byte


def _check_jpeg(data: bytes) -> None:
    at, count, end = 2, 0, len(data)
    while at + 3 < end:
        count += 1
        if count > MOST:
            raise InvalidImage(f"the image has more than {MOST} segments before its pixels")
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:  # filled up, or garbage
            at += 1
        elif marker == _SCAN[1]:
            return
        elif marker in _ALONE:
            at += 2
        else:
            if marker == _PROGRESSIVE and many_scans(data):
                raise InvalidImage(f"the image has more than {MOST_SCANS} scans")
            at += 2 + int.from_bytes(data[at + 2 : at + 4])


def _check_png(data: bytes) -> None:
    at, end = len(_PNG), len(data)
    others, pixels = 0, 0
    most_pixels = MOST + end // PIXEL_BYTES
    while at + 12 <= end:
        if data[at + 4 : at + 8] == b"IDAT":
            pixels += 1
        else:
            others += 1
        if others > MOST or pixels > most_pixels:
            raise InvalidImage(f"the image has more than {MOST if others > MOST else most_pixels} chunks")
        at += 12 + int.from_bytes(data[at : at + 4])


def _check_gif(data: bytes) -> None:
    end = len(data)
    if end < 13:
        return
    at = 13 + (3 << (data[10] & 7) + 1 if data[10] & 0x80 else 0)
    count = 0
    while at < end and data[at] not in (_FRAME, _END):
        extension = data[at] == _EXTENSION
        at += 2 if extension else 1
        if extension:
            while at < end and data[at]:
                at += 1 + data[at]
                count = _counted(count)
            at += 1
        count = _counted(count)


def _counted(count: int) -> int:
    if count >= MOST:
        raise InvalidImage(f"the image has more than {MOST} blocks before its pixels")
    return count + 1
