"""Draws meshes with moderngl over EGL: colour without jagged edges, and exactly what lies at every pixel's centre.

Runs wherever EGL does: on a GPU, or on a CPU by Mesa's llvmpipe. One renderer per process and size; it holds a GL
context. The world is metres with z up, cameras as in `sample`. Nothing is mirrored on the way: rows are written in the
order in which GL numbers them, so the first row read is the picture's first.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_zoo.geometry import Floats
from trainer.errors import TrainerError
from trainer.synth import shaders
from trainer.synth.sample import Camera

NEAR_M, FAR_M = 0.05, 200.0
FINENESS = 1.5
"""Pictures are drawn this many times larger along each side, and averaged: on a processor two thirds of the time of
four samples per pixel, and patterns are smoothed as well as edges."""
SHADOW_SIZE = 512
NOBODY = -1
"""Owner where nothing was drawn."""
THING = 1023
"""Part of what is no part of a body."""


class RenderingUnavailable(TrainerError):
    """No picture can be drawn here; the text says what is missing."""


@dataclass(eq=False)
class Surface:
    """What of a mesh does not move, N vertices: made once, kept on the device as long as it lives."""

    template: Floats
    """(N, 3) where each vertex lies on the template, metres: what garments end and patterns are told by."""
    local: Floats
    """(N, 3) the same about the axis of the limb that it is on: across, across, along."""
    tags: Floats
    """(N, 2) coordinate along the arm (-1 off the arms; 0 shoulder, 1 elbow, 2 wrist) and part: a bone, or THING."""
    faces: dict[str, NDArray[np.uint32]]
    """(F, 3) sets of triangles by name."""


@dataclass(frozen=True)
class Material:
    """How a layer looks: values of `shaders.FIELDS`; what is not named is zero."""

    values: dict[str, Any]

    def packed(self) -> bytes:
        """As the uniform array."""
        flat = np.zeros(shaders.ROWS * 4, np.float32)
        for name, value in self.values.items():
            flat[shaders.OFFSETS[name]] = value
        return flat.tobytes()


@dataclass(frozen=True)
class Layer:
    """One coat over a mesh: its skin, a shirt, the hair."""

    faces: str
    material: Material
    shadow: bool = True
    """Whether it casts one; coats that lie close on another need not."""
    closed: bool = False
    """Whether only its outside can be seen."""


@dataclass(frozen=True)
class Drawn:
    """A mesh in its pose, with all that it wears."""

    surface: Surface
    vertices: Floats
    """(N, 3) world, metres."""
    normals: Floats
    """(N, 3) unit."""
    layers: Sequence[Layer]
    owner: int = 0
    """Person it belongs to, from 1; 0 for things."""


@dataclass(frozen=True)
class Lights:
    """Linear light. Directions point from the scene towards the light."""

    key_from: tuple[float, float, float] = (0.4, -0.6, 0.7)
    key: tuple[float, float, float] = (1.6, 1.5, 1.4)
    fill_from: tuple[float, float, float] = (-0.7, -0.4, 0.3)
    fill: tuple[float, float, float] = (0.25, 0.28, 0.35)
    sky: tuple[float, float, float] = (0.5, 0.55, 0.65)
    ground: tuple[float, float, float] = (0.25, 0.22, 0.2)
    exposure: float = 1.0
    shadows: bool = True


@dataclass(frozen=True)
class Floor:
    """Where shadows fall: a disc below the people."""

    height: float
    darkness: float = 0.5
    radius: float = 4.0


@dataclass(frozen=True)
class Rendered:
    """A drawn picture and what is behind each of its H x W pixels, exactly at its centre."""

    rgb: NDArray[np.uint8]
    """(H, W, 3), sRGB."""
    depth: NDArray[np.float32]
    """(H, W) z in the camera frame, metres; infinity where nothing is."""
    owner: NDArray[np.int32]
    """(H, W) person, 0 for things, NOBODY for the background."""
    part: NDArray[np.int32]
    """(H, W) the bone that moves what is seen, or THING."""


@dataclass
class _Uploaded:
    statics: Any
    moving: Any
    indices: dict[str, tuple[Any, int]]
    arrays: dict[tuple[str, int], Any] = field(default_factory=dict)


class Renderer:
    """Draws pictures of one size.

    Raises:
        RenderingUnavailable: no EGL device, or no moderngl.
    """

    def __init__(self, width: int, height: int) -> None:
        os.environ.setdefault("LP_NUM_THREADS", "1")  # one process per core is faster than threads in one
        try:
            import moderngl

            self._gl = moderngl.create_context(standalone=True, backend="egl", require=330)
        except Exception as error:  # glcontext raises plain Exception
            raise RenderingUnavailable(
                f"cannot open EGL ({error}); install the extra `synth`, and on Debian libegl1 and libgl1-mesa-dri"
            ) from error
        gl = self._gl
        gl.cull_face = "front"
        self.width, self.height = width, height
        size = (width, height)
        fine = (round(width * FINENESS), round(height * FINENESS))
        self._fine = gl.framebuffer([gl.renderbuffer(fine, 4)], gl.depth_renderbuffer(fine))
        self._found = gl.framebuffer([gl.renderbuffer(size, 2, dtype="f4")], gl.depth_renderbuffer(size))
        self._shadow_map = gl.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow_map.repeat_x = self._shadow_map.repeat_y = False
        self._shadow_map.compare_func = "<="
        self._shadow = gl.framebuffer(depth_attachment=self._shadow_map)
        self._picture = gl.texture(size, 3, alignment=1)
        self._picture.filter = (moderngl.LINEAR, moderngl.LINEAR)
        self._picture.repeat_x = self._picture.repeat_y = False
        self._noise = gl.texture3d((32, 32, 32), 3, _noise_volume().tobytes(), alignment=1)
        self._programs = {
            "surface": gl.program(vertex_shader=shaders.VERTEX, fragment_shader=shaders.SURFACE),
            "identity": gl.program(vertex_shader=shaders.VERTEX, fragment_shader=shaders.IDENTITY),
            "shadow": gl.program(vertex_shader=shaders.VERTEX, fragment_shader=shaders.SHADOW),
            "backdrop": gl.program(vertex_shader=shaders.BACKDROP_VERTEX, fragment_shader=shaders.BACKDROP),
            "floor": gl.program(vertex_shader=shaders.FLOOR_VERTEX, fragment_shader=shaders.FLOOR),
        }
        corners = gl.buffer(np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]], np.float32).tobytes())
        self._quads = {
            name: gl.vertex_array(self._programs[name], [(corners, "2f", "in_corner")])
            for name in ("backdrop", "floor")
        }
        self._uploaded: weakref.WeakKeyDictionary[Surface, list[_Uploaded]] = weakref.WeakKeyDictionary()
        self._face = np.zeros(4, np.float32)

    def close(self) -> None:
        """Give the context back; the renderer cannot be used afterwards."""
        self._gl.release()

    def render(
        self,
        items: Sequence[Drawn],
        camera: Camera,
        lights: Lights,
        background: NDArray[np.uint8],
        floor: Floor | None = None,
        face: ArrayLike = (0.0, 0.0, 0.0, 0.0),
    ) -> Rendered:
        """Draw items over a background.

        Args:
            items: what is there; nearer things hide those behind them.
            camera: of this renderer's size.
            background: (H, W, 3) sRGB.
            floor: where shadows fall, if anywhere.
            face: where the template's face is, see `dressing.FACE`.
        """
        with self._gl:  # another renderer may have been used in between
            return self._rendered(items, camera, lights, background, floor, face)

    def _rendered(
        self,
        items: Sequence[Drawn],
        camera: Camera,
        lights: Lights,
        background: NDArray[np.uint8],
        floor: Floor | None,
        face: ArrayLike,
    ) -> Rendered:
        gl, placed = self._gl, self._placed(items)
        self._picture.write(np.ascontiguousarray(background).tobytes())
        to_view, to_clip = view_matrix(camera), clip_matrix(camera)
        to_shadow = shadow_matrix(items, lights.key_from)
        common = {"to_view": to_view, "to_clip": to_clip, "to_shadow": to_shadow, "face": np.asarray(face)}
        gl.enable(gl.DEPTH_TEST)
        self._noise.use(0)
        if lights.shadows:
            self._shadow.use()
            self._shadow.clear(depth=1.0)
            identity = common | {"to_view": np.eye(4), "to_clip": to_shadow}
            self._draw("shadow", placed, identity, shadows_only=True)
        self._shadow_map.use(1)
        self._fine.use()
        self._fine.clear(depth=1.0)
        gl.disable(gl.DEPTH_TEST)
        self._picture.use(2)
        self._programs["backdrop"]["picture"] = 2
        self._quads["backdrop"].render(gl.TRIANGLE_STRIP)
        if floor is not None and lights.shadows:
            self._draw_floor(items, floor, common)
        gl.enable(gl.DEPTH_TEST)
        self._draw("surface", placed, common | _light_uniforms(lights, camera))
        rgb = np.frombuffer(self._fine.read(components=3, alignment=1), np.uint8)
        rgb = rgb.reshape(self._fine.height, self._fine.width, 3)
        rgb = cv2.resize(rgb, (self.width, self.height), interpolation=cv2.INTER_AREA)
        self._found.use()
        self._found.clear(np.inf, NOBODY * 1024.0, depth=1.0)
        self._draw("identity", placed, common)
        found = np.frombuffer(self._found.read(components=2, dtype="f4", alignment=1), np.float32)
        found = found.reshape(self.height, self.width, 2)
        code = found[..., 1].astype(np.int32)
        return Rendered(rgb, found[..., 0].copy(), code // 1024, code % 1024)

    def _draw_floor(self, items: Sequence[Drawn], floor: Floor, common: dict[str, Any]) -> None:
        gl, program = self._gl, self._programs["floor"]
        middle = np.mean([item.vertices.mean(axis=0)[:2] for item in items], axis=0)
        _set(program, common | {"middle": (*middle, floor.height, floor.radius), "darkness": floor.darkness})
        program["shadow_map"] = 1
        gl.enable(gl.BLEND)
        gl.blend_func = gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA
        self._quads["floor"].render(gl.TRIANGLE_STRIP)
        gl.disable(gl.BLEND)

    def _draw(
        self,
        name: str,
        placed: list[tuple[Drawn, _Uploaded]],
        uniforms: dict[str, Any],
        shadows_only: bool = False,
    ) -> None:
        program = self._programs[name]
        _set(program, uniforms)
        for texture, unit in (("noise", 0), ("shadow_map", 1)):
            if texture in program:
                program[texture] = unit
        rows = program["u"]
        for item, uploaded in placed:
            if "owner" in program:
                program["owner"] = float(item.owner)
            for layer in item.layers:
                if shadows_only and not layer.shadow:
                    continue
                # The skin is closed, so its far side is never seen; rows are upside down, and so is its winding.
                (self._gl.enable if layer.closed else self._gl.disable)(self._gl.CULL_FACE)
                rows.write(
                    layer.material.packed()[: 16 * rows.array_length]
                )  # a compiler drops what it does not read
                self._array(program, uploaded, layer.faces).render(self._gl.TRIANGLES)
        self._gl.disable(self._gl.CULL_FACE)

    def _array(self, program: Any, uploaded: _Uploaded, faces: str) -> Any:
        key = (faces, program.glo)
        if key not in uploaded.arrays:
            statics = _attributes(program, {"in_template": 3, "in_local": 3, "in_tags": 2})
            moving = _attributes(program, {"in_position": 3, "in_normal": 3})
            uploaded.arrays[key] = self._gl.vertex_array(
                program,
                [(uploaded.moving, *moving), (uploaded.statics, *statics)],
                index_buffer=uploaded.indices[faces][0],
                index_element_size=4,
            )
        return uploaded.arrays[key]

    def _placed(self, items: Sequence[Drawn]) -> list[tuple[Drawn, _Uploaded]]:
        """Send what moved to the device; a surface that stands twice in one picture gets a second set of buffers."""
        used: dict[Surface, int] = {}
        placed = []
        for item in items:
            copies = self._uploaded.setdefault(item.surface, [])
            at = used.get(item.surface, 0)
            used[item.surface] = at + 1
            if at == len(copies):
                copies.append(self._upload(item.surface))
            moving = np.concatenate([item.vertices, item.normals], axis=1).astype(np.float32, copy=False)
            copies[at].moving.write(np.ascontiguousarray(moving))
            placed.append((item, copies[at]))
        return placed

    def _upload(self, surface: Surface) -> _Uploaded:
        statics = np.concatenate([surface.template, surface.local, surface.tags], axis=1).astype(np.float32)
        indices = {
            name: (self._gl.buffer(np.ascontiguousarray(faces, np.uint32)), faces.size)
            for name, faces in surface.faces.items()
            if faces.size
        }
        return _Uploaded(
            self._gl.buffer(np.ascontiguousarray(statics)),
            self._gl.buffer(reserve=len(statics) * 24, dynamic=True),
            indices,
        )


def view_matrix(camera: Camera) -> Floats:
    """(4, 4) world to camera frame."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = camera.R, camera.t
    return matrix


def clip_matrix(camera: Camera) -> Floats:
    """(4, 4) camera frame to GL's clip space: pixel (u, v) is the cell in column u and row v of the buffer."""
    width, height = camera.width, camera.height
    near, far = NEAR_M, FAR_M
    return np.array(
        [
            [2 * camera.fx / width, 0, 2 * (camera.cx + 0.5) / width - 1, 0],
            [0, 2 * camera.fy / height, 2 * (camera.cy + 0.5) / height - 1, 0],
            [0, 0, (far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, 1, 0],
        ]
    )


def shadow_matrix(items: Sequence[Drawn], towards: ArrayLike) -> Floats:
    """(4, 4) world to the clip space of a far light that sees all items."""
    forward = -np.asarray(towards, np.float64)
    forward /= np.linalg.norm(forward)
    helper = np.eye(3)[np.abs(forward).argmin()]
    right = np.cross(forward, helper)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(forward, right), forward])
    corners = np.concatenate(
        [np.zeros((0, 3)), *([i.vertices.min(axis=0), i.vertices.max(axis=0)] for i in items)]
    )
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, reach = (low + high) / 2, max(np.linalg.norm(high - low) / 2, 0.1) * 1.05
    matrix = np.eye(4)
    matrix[:3, :3] = axes / reach
    matrix[2, :3] /= 2  # floors lie behind the people
    matrix[:3, 3] = -matrix[:3, :3] @ middle
    return matrix


def _set(program: Any, uniforms: dict[str, Any]) -> None:
    """Write the uniforms that a program has; GL reads matrices column by column."""
    for name, value in uniforms.items():
        if name in program:
            value = np.asarray(value, np.float32)
            program[name].write(np.ascontiguousarray(value.T).tobytes())


def _light_uniforms(lights: Lights, camera: Camera) -> dict[str, Any]:
    def unit(vector: ArrayLike) -> Floats:
        return np.asarray(vector, np.float64) / np.linalg.norm(vector)

    return {
        "eye_at": -np.asarray(camera.R).T @ camera.t,
        "key_from": unit(lights.key_from),
        "key_light": lights.key,
        "fill_from": unit(lights.fill_from),
        "fill_light": lights.fill,
        "sky": lights.sky,
        "ground": lights.ground,
        "exposure": lights.exposure,
        "shadowed": float(lights.shadows),
    }


def _attributes(program: Any, widths: dict[str, int]) -> tuple[str, ...]:
    """moderngl's layout of a buffer and its names; what a program does not read is skipped as padding."""
    layout = [f"{width}f" if name in program else f"{width}x4" for name, width in widths.items()]
    return (" ".join(layout), *(name for name in widths if name in program))


def _noise_volume() -> NDArray[np.uint8]:
    """(32, 32, 32, 3) smooth noise that repeats, the same on every machine."""
    rng = np.random.default_rng(0)
    total = np.zeros((32, 32, 32, 3))
    for cells, weight in ((8, 1.0), (16, 0.6), (32, 0.35)):
        grid = rng.uniform(-1, 1, (cells, cells, cells, 3))
        for axis in range(3):
            at = np.arange(32) * cells / 32
            low, part = at.astype(int), at % 1
            part = (part * part * (3 - 2 * part)).reshape([-1 if each == axis else 1 for each in range(4)])
            grid = np.take(grid, low, axis) * (1 - part) + np.take(grid, (low + 1) % cells, axis) * part
        total += weight * grid
    return np.clip(127.5 + 127.5 * total / 1.6, 0, 255).astype(np.uint8)


@contextmanager
def renderer(width: int, height: int) -> Iterator[Renderer]:
    """A renderer for as long as it is needed."""
    made = Renderer(width, height)
    try:
        yield made
    finally:
        made.close()
