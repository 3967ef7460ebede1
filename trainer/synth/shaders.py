"""The programs that draw: one vertex shader, one surface shader with every pattern, and small ones around them.

Everything that varies from garment to garment is a row of one uniform array, laid out by `FIELDS`.
"""

from __future__ import annotations

FIELDS: dict[str, int] = {
    "kind": 1,  # see KINDS; compiled in
    "cover": 1,  # which rule says where the surface ends, see COVERS; compiled in
    "thickness": 1,  # metres that the surface stands off the mesh
    "loose": 1,  # metres more where it hangs
    "colour": 3,  # linear light
    "gloss": 1,
    "colour2": 3,
    "scale": 1,  # metres per repeat of the pattern
    "colour3": 3,
    "pattern": 1,  # see PATTERNS
    "low": 1,  # template height where it ends below, metres
    "high": 1,  # and above
    "sleeve": 1,  # arm coordinate where it ends: 0 shoulder, 1 elbow, 2 wrist
    "neck": 1,  # how far the neckline is cut out, metres
    "open": 1,  # half width of what a jacket leaves open in front, metres
    "wrinkle": 1,
    "mottle": 1,  # how uneven the colour is
    "turn": 1,  # of the pattern, radians
    "seed": 3,
    "shine": 1,
    "under_top": 3,  # what the skin below a top is painted with
    "under_low": 1,
    "under_bottom": 3,
    "under_leg": 1,
    "lips": 3,
    "brow": 1,
    "iris": 3,
    "stubble": 1,
    "hair": 3,
    "shade": 1,
}
"""Uniform rows by name and width; packed in this order, four floats to a row."""

KINDS = {"skin": 0, "cloth": 1, "hair": 2, "thing": 3}
COVERS = {"all": 0, "top": 1, "bottom": 2, "foot": 3, "hand": 4, "scalp": 5, "beard": 6}
PATTERNS = {
    "plain": 0, "stripes": 1, "hoops": 2, "checks": 3, "dots": 4, "print": 5,
    "camouflage": 6, "panel": 7, "number": 8,
}  # fmt: skip


def offsets() -> dict[str, slice]:
    """Where each field lies in the flat array of floats."""
    places, at = {}, 0
    for name, width in FIELDS.items():
        places[name] = slice(at, at + width)
        at += width
    return places


OFFSETS = offsets()
ROWS = -(-sum(FIELDS.values()) // 4)


def _defines() -> str:
    lines = [f"uniform vec4 u[{ROWS}];"]
    for name, place in OFFSETS.items():
        row, column = divmod(place.start, 4)
        width = place.stop - place.start
        if column + width > 4:
            raise AssertionError(f"{name} would straddle two rows")
        lines.append(f"#define M_{name} (u[{row}].{'xyzw'[column : column + width]})")
    for prefix, names in (("KIND", KINDS), ("COVER", COVERS), ("PATTERN", PATTERNS)):
        lines += [f"#define {prefix}_{name} {number}" for name, number in names.items()]
    return "\n".join(lines)


_HEAD = _defines() + "\n"


def source(text: str, kind: int, cover: int, *, patterned: bool, detail: bool) -> str:
    """One of the shaders below for one sort of coat: what never applies to it costs nothing."""
    fixed = {"KIND": kind, "COVER": cover, "PATTERNED": int(patterned), "DETAIL": int(detail)}
    return "".join(
        ["#version 330\n", *(f"#define {name} {value}\n" for name, value in fixed.items()), _HEAD, text]
    )


VERTEX = """
uniform mat4 to_clip;
uniform mat4 to_view;
uniform mat4 to_shadow;
in vec3 in_position;
in vec3 in_normal;
in vec3 in_template;
in vec3 in_local;
in vec3 in_tags;
out vec3 world;
out vec3 normal;
out vec3 where;
out vec3 local;
out float arm;
out float depth;
out vec3 shadow;
flat out float part;
void main() {
    float away = M_thickness;
    if (KIND == KIND_cloth && M_loose > 0.0) {
        float hang = COVER == COVER_bottom ? smoothstep(0.12, -0.75, in_template.z)
            : in_tags.x >= 0.0 ? smoothstep(-0.2, 1.0, in_tags.x) : smoothstep(0.5, 0.0, in_template.z);
        float wave = sin(dot(in_template, vec3(23.0, 17.0, 9.0)) + M_seed.x * 6.28)
            * sin(dot(in_template, vec3(-13.0, 19.0, 15.0)) + M_seed.y * 6.28);
        away += M_loose * hang * (0.8 + 0.5 * wave);
    }
    if (KIND == KIND_hair) {
        float up = smoothstep(0.62, 0.8, in_template.z);
        float wave = sin(in_template.x * 61.0 + M_seed.x * 9.0) * sin(in_template.y * 53.0 + M_seed.y * 9.0)
            * sin(in_template.z * 57.0 + M_seed.z * 9.0);
        away += M_loose * (0.25 + 0.75 * up) * (1.0 + 0.35 * wave);
    }
    vec3 at = in_position + in_normal * away;
    vec4 seen = to_view * vec4(at, 1.0);
    world = at;
    normal = in_normal;
    where = in_template;
    local = in_local;
    arm = in_tags.x;
    part = in_tags.y;
    depth = seen.z;
    vec4 lit = to_shadow * vec4(at, 1.0);
    shadow = lit.xyz * 0.5 + 0.5;
    gl_Position = to_clip * seen;
}
"""

_COVERED = """
in vec3 world;
in vec3 normal;
in vec3 where;
in vec3 local;
in float arm;
in float depth;
in vec3 shadow;
flat in float part;
uniform sampler3D noise;
uniform vec4 face;  // template: x of the left eye, y and z of the eyes, z of the mouth
bool covered(vec3 rough) {
    if (COVER == COVER_all) return true;
    if (COVER == COVER_top) {
        if (arm >= 0.0) return arm < M_sleeve;
        if (where.z < M_low) return false;
        // The neckline: a bowl around the base of the neck, deeper in front.
        vec3 from_neck = where - vec3(0.0, where.y < -0.02 ? -0.05 : 0.0, 0.55);
        if (length(from_neck * vec3(1.0, 0.9, 0.75)) < M_neck) return false;
        if (where.z > M_high) return false;
        return !(abs(where.x + 0.01 * rough.x) < M_open && where.y < 0.0);
    }
    if (COVER == COVER_bottom) return arm < 0.0 && where.z > M_low + 0.004 * rough.x && where.z < M_high;
    if (COVER == COVER_foot) return where.z < M_high;
    if (COVER == COVER_hand) return arm > M_low;
    if (COVER == COVER_scalp) {
        // Above a line that is high over the forehead, falls to the ears, and reaches the nape.
        float back = where.y - face.y;
        float line = face.z + M_high - smoothstep(0.05, 0.12, back) * M_low + rough.x * 0.03;
        return where.z > line;
    }
    float back = where.y - face.y;  // a beard: the chin and the cheeks below the mouth, and the upper lip
    float line = face.w + 0.012 + smoothstep(0.02, 0.07, back) * 0.035 + rough.x * 0.02;
    bool mouth = length((where.xz - vec2(0.0, face.w)) * vec2(1.0, 2.0)) < 0.02 && back < 0.03;
    return where.z < line && where.z > face.w - 0.085 && back < 0.09 && !mouth;
}
"""

SURFACE = (
    _COVERED
    + """
uniform vec3 eye_at;
uniform vec3 key_from;
uniform vec3 key_light;
uniform vec3 fill_from;
uniform vec3 fill_light;
uniform vec3 sky;
uniform vec3 ground;
uniform float exposure;
uniform float shadowed;
uniform sampler2DShadow shadow_map;
uniform float owner;
layout(location = 0) out vec4 seen;
layout(location = 1) out vec2 found;  // depth, and whose it is

float lit_by_key() {
    if (shadowed < 0.5 || shadow.x < 0.0 || shadow.x > 1.0 || shadow.y < 0.0 || shadow.y > 1.0) return 1.0;
    return texture(shadow_map, shadow - vec3(0.0, 0.0, 0.006));  // between four texels
}

vec3 cloth(vec3 rough) {
    int pattern = int(M_pattern);
    vec3 base = M_colour;
    if (PATTERNED == 0) return base;
    float round = atan(local.x, -local.y) * (arm >= 0.0 ? 0.05 : 0.14);
    vec2 at = vec2(round, local.z);
    float c = cos(M_turn), s = sin(M_turn);
    vec2 turned = mat2(c, -s, s, c) * at / M_scale;
    vec2 cell = fract(turned) - 0.5;
    if (pattern == PATTERN_stripes) return mix(base, M_colour2, smoothstep(0.2, 0.24, abs(cell.x)));
    if (pattern == PATTERN_hoops) return mix(base, M_colour2, smoothstep(0.2, 0.24, abs(cell.y)));
    if (pattern == PATTERN_checks) {
        float a = step(0.0, cell.x), b = step(0.0, cell.y);
        vec3 both = mix(base, M_colour2, 0.5 * (a + b));
        return mix(both, M_colour3, step(0.46, max(abs(cell.x), abs(cell.y))));
    }
    if (pattern == PATTERN_dots) return mix(M_colour2, base, smoothstep(0.25, 0.3, length(cell)));
    if (pattern == PATTERN_print) {
        vec3 n = texture(noise, vec3(turned * 0.2, 0.5) + M_seed).xyz;
        return mix(mix(base, M_colour2, smoothstep(0.5, 0.56, n.x)), M_colour3, smoothstep(0.58, 0.62, n.y));
    }
    if (pattern == PATTERN_camouflage) {
        vec3 n = texture(noise, where * 0.25 / M_scale + M_seed).xyz;
        return mix(mix(base, M_colour2, step(0.52, n.x)), M_colour3, step(0.56, n.y));
    }
    if (pattern == PATTERN_panel) {  // sleeves, sides or one half in another colour
        float side = M_turn < 0.5 ? step(0.0, arm) : M_turn < 1.0 ? step(0.1, abs(local.x)) : step(0.0, where.x);
        return mix(base, M_colour2, side);
    }
    // Something on the chest and on the back: bars in a grid, as letters and numbers look from afar.
    vec2 chest = (where.xz - vec2(0.0, 0.30)) / vec2(0.13, 0.12);
    if (arm >= 0.0 || max(abs(chest.x), abs(chest.y)) > 1.0) return base;
    vec2 letter = floor((chest + 1.0) * vec2(3.0, 2.5));
    float on = step(0.45, fract(sin(dot(letter + floor(M_seed.xy * 40.0), vec2(12.9898, 78.233))) * 43758.5453));
    return mix(base, M_colour2, on);
}

vec3 skin(vec3 rough) {
    vec3 base = M_colour;
    // Redder where blood is near: cheeks, ears, hands, knees.
    base *= 1.0 + 0.25 * rough * vec3(1.0, 0.6, 0.5);
    vec2 eye = vec2(abs(where.x) - face.x, where.z - face.z);
    float front = step(where.y, face.y + 0.03);
    if (where.z > 0.56) {
        float cheek = exp(-dot(vec2(abs(where.x) - 0.04, where.z - face.z + 0.035),
            vec2(abs(where.x) - 0.04, where.z - face.z + 0.035)) * 1500.0);
        base = mix(base, base * vec3(1.1, 0.8, 0.78), 0.6 * cheek * front);
        vec2 lip = (vec2(where.x, where.z - face.w)) * vec2(1.0, 2.6);
        base = mix(base, M_lips, front * smoothstep(0.027, 0.02, length(lip)) * 0.85);
        float line = smoothstep(0.0022, 0.0008, abs(where.z - face.w)) * step(abs(where.x), 0.022);
        base = mix(base, base * 0.35, front * line);
        // Sockets and lids are darker than the rest.
        base *= 1.0 - 0.35 * front * smoothstep(0.02, 0.008, length(eye * vec2(0.8, 1.4)));
        vec2 brow = eye - vec2(0.002, 0.021 - 6.0 * eye.x * eye.x);
        float browed = smoothstep(0.005, 0.003, abs(brow.y)) * smoothstep(0.022, 0.017, abs(brow.x));
        base = mix(base, M_hair, front * M_brow * browed);
        float jaw = front * smoothstep(face.w + 0.03, face.w, where.z)
            * smoothstep(face.w - 0.09, face.w - 0.05, where.z);
        base = mix(base, M_hair, M_stubble * jaw);
    }
    // Nobody is without clothes: this lies below whatever else is worn.
    if (arm < 0.0 ? where.z < 0.44 && where.z > M_under_low : arm < M_shade) return M_under_top;
    if (arm < 0.0 && where.z <= M_under_low && where.z > M_under_leg) return M_under_bottom;
    return base;
}

vec3 eyeball() {
    float out_of = length(vec2(abs(where.x) - face.x, where.z - face.z));
    vec3 white = vec3(0.75, 0.72, 0.7);
    vec3 iris = mix(M_iris, vec3(0.005), smoothstep(0.0032, 0.0026, out_of));
    return mix(iris, white, smoothstep(0.0066, 0.0074, out_of));
}

void main() {
    vec3 rough = texture(noise, where * 6.0 + M_seed).xyz - 0.5;
    if (!covered(rough)) discard;
    vec3 fine = DETAIL == 1 ? texture(noise, where * 23.0 + M_seed.yzx).xyz - 0.5 : rough.zxy;
    vec3 towards = normalize(eye_at - world);
    vec3 n = normalize(normal);
    if (dot(n, towards) < 0.0) n = -n;
    vec3 base;
    float shine = M_shine;
    if (KIND == KIND_skin) {
        base = part > 101.5 && part < 103.5 ? eyeball() : skin(rough);
        n = normalize(n + 0.12 * fine);
    } else if (KIND == KIND_cloth) {
        base = cloth(rough) * (1.0 + M_mottle * (rough.x + fine.y));
        n = normalize(n + M_wrinkle * (1.6 * rough + 0.7 * fine));
    } else if (KIND == KIND_hair) {
        vec3 strand = texture(noise, where * vec3(60.0, 60.0, 7.0) + M_seed).xyz - 0.5;
        base = M_colour * (1.0 + 1.1 * strand.x);
        n = normalize(n + 0.9 * strand + 0.4 * rough);
    } else {
        base = mix(M_colour, M_colour2, step(0.5, M_pattern) * step(0.0, sin(local.z * 6.2832 / M_scale)
            * (M_pattern > 1.5 ? sin(local.x * 6.2832 / M_scale) : 1.0)));
        base *= 1.0 + M_mottle * (rough.x + fine.y);
        n = normalize(n + M_wrinkle * fine);
    }
    float key = max(dot(n, key_from), 0.0);
    // Skin lets light through: its terminator is soft and red.
    vec3 through = KIND == KIND_skin ? vec3(0.10, 0.03, 0.02) * max(1.0 - abs(dot(n, key_from)), 0.0) : vec3(0.0);
    float shade = key > 0.0 ? lit_by_key() : 1.0;
    vec3 light = key_light * (key + through) * shade + fill_light * max(dot(n, fill_from), 0.0)
        + mix(ground, sky, 0.5 + 0.5 * n.z);
    vec3 halfway = normalize(key_from + towards);
    float spec = shine * pow(max(dot(n, halfway), 0.0), M_gloss) * (M_gloss + 8.0) / 25.0;
    float rim = shine * 0.5 * pow(1.0 - max(dot(n, towards), 0.0), 4.0);
    vec3 colour = base * light + key_light * spec * shade * step(0.001, key) + sky * rim;
    colour *= exposure;
    colour = colour / (1.0 + 0.25 * dot(colour, vec3(0.3, 0.6, 0.1)));
    seen = vec4(sqrt(clamp(colour, 0.0, 1.0)), 1.0);
    found = vec2(depth, owner * 1024.0 + (part >= 0.0 ? part : 1023.0));
}
"""
)

SHADOW = _COVERED + "void main() { if (!covered(vec3(0.0))) discard; }\n"

FLOOR_VERTEX = """#version 330
uniform mat4 to_clip;
uniform mat4 to_view;
uniform mat4 to_shadow;
uniform vec4 middle;  // x, y, z of the floor below the people, and how far it reaches
uniform vec4 part;  // of it, least x and y and most: what shadows can fall on
in vec2 in_corner;
out vec3 shadow;
out vec2 at;
void main() {
    vec4 world = vec4(mix(part.xy, part.zw, in_corner), middle.z, 1.0);
    at = (world.xy - middle.xy) / middle.w;
    shadow = (to_shadow * world).xyz * 0.5 + 0.5;
    gl_Position = to_clip * to_view * world;
}
"""
FLOOR = """#version 330
uniform sampler2DShadow shadow_map;
uniform float darkness;
in vec3 shadow;
in vec2 at;
out vec4 seen;
void main() {
    if (shadow.x < 0.0 || shadow.x > 1.0 || shadow.y < 0.0 || shadow.y > 1.0) discard;
    float lit = 0.0;
    for (int i = -1; i <= 1; i += 2)
        for (int j = -1; j <= 1; j += 2)
            lit += 0.25 * texture(shadow_map, vec3(shadow.xy + vec2(i, j) * 0.004, min(shadow.z, 1.0) - 0.004));
    float alpha = darkness * (1.0 - lit) * smoothstep(1.0, 0.6, length(at));
    if (alpha < 0.01) discard;
    seen = vec4(0.0, 0.0, 0.0, alpha);
}
"""
