"""Draws meshes with moderngl over EGL: colour without jagged edges, and what lies at every pixel's centre.

Runs wherever EGL does: on a GPU, or on a CPU by Mesa's llvmpipe. One renderer per process and size; it holds a GL
context. The world is metres with z up, cameras as in `sample`. Nothing is mirrored on the way: rows are written in the
order in which GL numbers them, so the first row read is the picture's first.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from model_zoo.geometry import Floats
from trainer.errors import TrainerError
from trainer.synth import shaders
from trainer.synth.projection import clip_matrix, shadow_bounds, shadow_matrix, view_matrix
from trainer.synth.sample import Camera

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
    """A drawn picture and what is behind each of its H x W pixels, at its centre to a sixth of a pixel."""

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
    """Draws pictures of one size, or smaller.

    Args:
        width, height: of the largest pictures, pixels.
        detail: whether textures have a grain of a millimetre, which only close views show.

    Raises:
        RenderingUnavailable: no EGL device, or no moderngl.
    """

    def __init__(self, width: int, height: int, *, detail: bool = True) -> None:
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
        self.width, self.height, self._detail = width, height, detail
        fine = _finer(width, height)
        colour, found, depth = (
            gl.renderbuffer(fine, 4),
            gl.renderbuffer(fine, 2, dtype="f4"),
            gl.depth_renderbuffer(fine),
        )
        self._colour = gl.framebuffer([colour])
        self._found = gl.framebuffer([found])
        self._depths = gl.framebuffer([], depth)
        self._fine = gl.framebuffer([colour, found], depth)
        self._shadow_map = gl.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow_map.repeat_x = self._shadow_map.repeat_y = False
        self._shadow_map.compare_func = "<="
        self._shadow = gl.framebuffer(depth_attachment=self._shadow_map)
        self._noise = gl.texture3d((32, 32, 32), 3, _noise_volume().tobytes(), alignment=1)
        self._coats: dict[tuple[str, int, int, bool], tuple[Any, dict[str, Any]]] = {}
        self._floor = gl.program(vertex_shader=shaders.FLOOR_VERTEX, fragment_shader=shaders.FLOOR)
        corners = gl.buffer(np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32).tobytes())
        self._floor_quad = gl.vertex_array(self._floor, [(corners, "2f", "in_corner")])
        self._uploaded: weakref.WeakKeyDictionary[Surface, list[_Uploaded]] = weakref.WeakKeyDictionary()

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
            camera: no larger than this renderer's pictures.
            background: (H, W, 3) sRGB.
            floor: where shadows fall, if anywhere.
            face: where the template's face is, see `dressing.face`.
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
        if background.shape != (camera.height, camera.width, 3):
            raise ValueError(f"a background of shape {background.shape} for a camera of other size")
        gl, placed = self._gl, self._placed(items)
        to_view, to_clip = view_matrix(camera), clip_matrix(camera)
        to_shadow = shadow_matrix([item.vertices for item in items], lights.key_from) if items else np.eye(4)
        common = {"to_view": to_view, "to_clip": to_clip, "to_shadow": to_shadow, "face": np.asarray(face)}
        gl.enable(gl.DEPTH_TEST)
        self._noise.use(0)
        if lights.shadows:
            self._shadow.use()
            self._shadow.clear(depth=1.0)
            identity = common | {"to_view": np.eye(4), "to_clip": to_shadow}
            self._draw("shadow", placed, identity, shadows_only=True)
        self._shadow_map.use(1)
        fine = _finer(camera.width, camera.height)
        self._colour.viewport = self._fine.viewport = (0, 0, *fine)
        self._found.use()
        self._found.clear(np.inf, NOBODY * 1024.0)
        self._colour.use()
        self._colour.clear(0.0, 0.0, 0.0, 0.0)
        if floor is not None and lights.shadows and items:
            gl.disable(gl.DEPTH_TEST)
            self._draw_floor(items, floor, lights, common)
            gl.enable(gl.DEPTH_TEST)
        self._depths.clear(depth=1.0)
        self._fine.use()
        self._draw("surface", placed, common | _light_uniforms(lights, camera))
        rgb = _over(self._read(fine, 4, 0, "f1"), background)
        depth, code = self._read(fine, 2, 1, "f4").transpose(2, 0, 1)
        centres = np.ix_(_centres(fine[1], camera.height), _centres(fine[0], camera.width))
        found = code[centres].astype(np.int32)
        return Rendered(rgb, depth[centres], found >> 10, found & 1023)

    def _read(self, size: tuple[int, int], channels: int, attachment: int, dtype: str) -> NDArray:
        """(h, w, channels) of what was drawn."""
        data = self._fine.read(
            (0, 0, *size), components=channels, attachment=attachment, dtype=dtype, alignment=1
        )
        return np.frombuffer(data, np.uint8 if dtype == "f1" else np.float32).reshape(*size[::-1], channels)

    def _draw_floor(
        self, items: Sequence[Drawn], floor: Floor, lights: Lights, common: dict[str, Any]
    ) -> None:
        gl, middle = self._gl, np.mean([item.vertices.mean(axis=0)[:2] for item in items], axis=0)
        low, high = shadow_bounds([item.vertices for item in items], lights.key_from, floor.height)
        low, high = np.maximum(low, middle - floor.radius), np.minimum(high, middle + floor.radius)
        if (low >= high).any():
            return
        own = {"middle": (*middle, floor.height, floor.radius), "part": (*low, *high)}
        members = {member: self._floor[member] for member in self._floor}
        _set(members, _packed(common | own | {"darkness": floor.darkness}))
        members["shadow_map"].value = 1
        gl.enable(gl.BLEND)
        gl.blend_func = gl.ONE, gl.ONE_MINUS_SRC_ALPHA
        self._floor_quad.render(gl.TRIANGLE_STRIP)
        gl.disable(gl.BLEND)

    def _draw(
        self,
        name: str,
        placed: list[tuple[Drawn, _Uploaded]],
        uniforms: dict[str, Any],
        shadows_only: bool = False,
    ) -> None:
        packed, ready = _packed(uniforms), set()
        for item, uploaded in placed:
            for layer in reversed(item.layers):  # what hides the rest first: it need not be shaded then
                if shadows_only and not layer.shadow:
                    continue
                program, members = self._coat(name, layer.material)
                if program not in ready:
                    ready.add(program)
                    _set(members, packed)
                if "owner" in members:
                    members["owner"].value = float(item.owner)
                # The skin is closed, so its far side is never seen; rows are upside down, and so is its winding.
                (self._gl.enable if layer.closed else self._gl.disable)(self._gl.CULL_FACE)
                if "u" in members:  # a compiler drops what it does not read
                    rows = members["u"]
                    rows.write(layer.material.packed()[: 16 * rows.array_length])
                self._array(program, uploaded, layer.faces).render(self._gl.TRIANGLES)
        self._gl.disable(self._gl.CULL_FACE)

    def _coat(self, name: str, material: Material) -> tuple[Any, dict[str, Any]]:
        """The program that draws one sort of coat, made when it is first needed, and its members by name."""
        values = material.values
        patterned = name == "surface" and bool(values.get("pattern"))
        key = (name, int(values.get("kind", 0)), int(values.get("cover", 0)), patterned)
        if key not in self._coats:
            vertex, fragment = (
                shaders.source(text, *key[1:3], patterned=patterned, detail=self._detail)
                for text in (shaders.VERTEX, shaders.SURFACE if name == "surface" else shaders.SHADOW)
            )
            program = self._gl.program(vertex_shader=vertex, fragment_shader=fragment)
            members = {
                member: program[member] for member in program
            }  # moderngl looks through all of them each time
            for texture, unit in (("noise", 0), ("shadow_map", 1)):
                if texture in members:
                    members[texture].value = unit
            self._coats[key] = program, members
        return self._coats[key]

    def _array(self, program: Any, uploaded: _Uploaded, faces: str) -> Any:
        key = (faces, program.glo)
        if key not in uploaded.arrays:
            statics = _attributes(program, {"in_template": 3, "in_local": 3, "in_tags": 2})
            moving = _attributes(program, {"in_position": 3, "in_normal": 3})
            read = (uploaded.moving, moving), (uploaded.statics, statics)
            uploaded.arrays[key] = self._gl.vertex_array(
                program,
                [(buffer, *layout) for buffer, layout in read if len(layout) > 1],
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


def _finer(width: int, height: int) -> tuple[int, int]:
    """What a picture of this size is drawn at."""
    return round(width * FINENESS), round(height * FINENESS)


@lru_cache(maxsize=64)
def _centres(fine: int, count: int) -> NDArray[np.intp]:
    """The fine pixel in which the centre of each of `count` pixels lies."""
    return ((np.arange(count) + 0.5) * fine / count).astype(int)


def _over(seen: NDArray[np.uint8], background: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) what was drawn, (h, w, 4) finer and with its colours times its alpha, over a background."""
    height, width = background.shape[:2]
    small = cv2.resize(seen, (width, height), interpolation=cv2.INTER_LINEAR)
    through = cv2.cvtColor(cv2.bitwise_not(small[..., 3]), cv2.COLOR_GRAY2RGB)
    return cv2.add(cv2.multiply(background, through, scale=1 / 255), cv2.cvtColor(small, cv2.COLOR_RGBA2RGB))


def _packed(uniforms: dict[str, Any]) -> dict[str, bytes]:
    """Uniforms as GL reads them: matrices column by column."""
    return {
        name: np.ascontiguousarray(np.asarray(value, np.float32).T).tobytes()
        for name, value in uniforms.items()
    }


def _set(members: dict[str, Any], packed: dict[str, bytes]) -> None:
    """Write the uniforms that a program has."""
    for name, value in packed.items():
        if name in members:
            members[name].write(value)


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
