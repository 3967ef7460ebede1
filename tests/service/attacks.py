"""What somebody sends who wants to hurt: pictures that are bombs, and what is around them."""

from __future__ import annotations

import resource
import socket
import struct
import zlib
from contextlib import ExitStack
from io import BytesIO

import PIL.Image

SIDE = 50_000


def headers_of_huge_pictures() -> dict[str, bytes]:
    """Some bytes each that say to be 50,000 x 50,000 pixels."""
    return {
        "jpeg": _jpeg(),
        "png": b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(bytes(1_000_000))) + _chunk(b"IEND"),
        "webp": _webp(),
        "bmp": b"BM" + struct.pack("<IHHI", 100_054, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 24, 0, 0, 2835, 2835, 0, 0) + bytes(100_000),
        "gif": b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0xF0, 0, 0) + bytes(6)
        + b"," + struct.pack("<HHHHB", 0, 0, SIDE, SIDE, 0) + b"\x02\x02\x4c\x01\x00;",
    }  # fmt: skip


def _jpeg() -> bytes:
    jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    frame = (
        b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, SIDE, SIDE, 3) + b"\x01\x11\x00\x02\x11\x00\x03\x11\x00"
    )
    scan = b"\xff\xda" + struct.pack(">HB", 12, 3) + b"\x01\x00\x02\x00\x03\x00\x00\x3f\x00"
    return b"\xff\xd8" + jfif + frame + scan + bytes(1000) + b"\xff\xd9"


def _webp() -> bytes:
    """An animation: only their canvas may be so large."""
    held = BytesIO()
    frames = [PIL.Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(held, "WEBP", save_all=True, append_images=frames[1:])
    data = held.getvalue()
    assert data[12:16] == b"VP8X"
    return data[:24] + (SIDE - 1).to_bytes(3, "little") * 2 + data[30:]


def _chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def open_files_for(count: int) -> bool:
    """Make room for so many sockets in this process, and in those that it starts; whether there is."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count + 256:
        return False
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + 256), most))
    return True


def trickles(held: ExitStack, port: int, count: int, length: int = 10_000_000) -> list[socket.socket]:
    """Uploads that have begun; whoever has them sends a byte now and then."""
    head = (
        f"POST /v1/pose HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n"
    )
    return [_sent(held, port, head.encode()) for _ in range(count)]


def idle(held: ExitStack, port: int, count: int) -> list[socket.socket]:
    """Connections that say nothing."""
    return [_sent(held, port, b"") for _ in range(count)]


def _sent(held: ExitStack, port: int, data: bytes) -> socket.socket:
    connection = held.enter_context(socket.create_connection(("127.0.0.1", port), 30))
    connection.sendall(data)
    return connection


def resident_bytes(pid: int, *, most: bool = False) -> int:
    """Of a process: memory that it has, or the most that it ever had."""
    name = "VmHWM" if most else "VmRSS"
    with open(f"/proc/{pid}/status") as lines:
        found = next(line for line in lines if line.startswith(name))
    return int(found.split()[1]) * 1024
