# ruff: noqa: E501 - a table reads best with one pose a line
"""What people do, as angles: key poses of everyday life and of sports, to be mixed, mirrored and varied.

Names as in `anatomy.NAMES`, a sided name without `l_` or `r_` meaning both sides. `tilt` is how the body lies in
space, degrees: (pitch, roll), pitch forwards, roll to the person's left. Written down for this project, from no data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.synth import anatomy

_TABLE = """
stand: shoulder_abduct 8, elbow 12, pronation 20
stand_wide: hip_abduct 16, shoulder_abduct 12, elbow 20
contrapposto: l_hip_flex 15, l_knee 25, l_hip_twist 15, spine_bend 6, elbow 15
at_ease: l_shoulder_flex -33, l_shoulder_abduct 7, r_shoulder_flex -44, shoulder_twist -60, l_elbow 65, r_elbow 70, hip_abduct 10
hands_on_hips: shoulder_abduct 45, shoulder_flex -12, shoulder_twist -40, elbow 105, pronation 30, hip_abduct 8
one_hand_on_hip: l_shoulder_abduct 45, l_shoulder_flex -12, l_shoulder_twist -40, l_elbow 105, r_elbow 10
arms_crossed: shoulder_flex 35, shoulder_twist -70, l_elbow 105, r_elbow 90, pronation 30
arms_up: shoulder_flex 165, elbow 10
arms_up_v: shoulder_flex 80, shoulder_abduct 125, elbow 15
t_pose: shoulder_abduct 90
victory: l_shoulder_flex 165, r_shoulder_abduct 10, r_elbow 60
wave: r_shoulder_abduct 80, r_shoulder_twist 70, r_elbow 100, l_shoulder_abduct 8
point_forward: r_shoulder_flex 88, r_pronation 60
point_up: r_shoulder_flex 140, r_elbow 15
phone: r_shoulder_flex 45, r_shoulder_abduct 30, r_elbow 142, r_pronation 10, neck_bend -8
reading: shoulder_flex 30, shoulder_twist -20, elbow 95, pronation -45, neck_flex 28
texting: shoulder_flex 22, shoulder_twist -35, l_elbow 101, r_elbow 105, pronation -30, neck_flex 35, spine_flex 10
drinking: r_shoulder_flex 65, r_shoulder_abduct 20, r_elbow 135, neck_flex -15
carry_box: shoulder_flex 25, elbow 85, pronation -40, spine_flex -6, shoulder_twist -15
carry_on_head: shoulder_flex 130, shoulder_abduct 80, elbow 75
backpack: shoulder_flex 10, shoulder_twist -25, elbow 130, spine_flex 10
applause: l_shoulder_flex 40, r_shoulder_flex 50, shoulder_twist -45, elbow 90
prayer: shoulder_flex 40, shoulder_twist -55, l_elbow 123, r_elbow 110, wrist_flex -60
hands_behind_head: shoulder_flex 60, shoulder_abduct 110, shoulder_twist 30, elbow 135
bow: spine_flex 60, hip_flex 35, neck_flex 15, shoulder_flex 20
pick_up: spine_flex 60, hip_flex 85, knee 30, shoulder_flex 90, elbow 5
lift: spine_flex 25, hip_flex 95, knee 95, shoulder_flex 60, ankle -20
sit: hip_flex 88, knee 88, shoulder_flex 20, elbow 60, pronation 50
sit_legs_crossed: hip_flex 90, knee 85, l_hip_flex 105, l_hip_abduct -15, l_knee 75, shoulder_flex 15, elbow 80
sit_slouched: hip_flex 70, knee 60, spine_flex 35, neck_flex 15, shoulder_flex 20, elbow 50
sit_desk: hip_flex 90, knee 95, shoulder_flex 40, elbow 75, pronation 70, neck_flex 12
sit_floor: hip_flex 92, knee 5, shoulder_flex -40, shoulder_abduct 25, spine_flex 15
cross_legged: l_hip_flex 90, r_hip_flex 95, hip_abduct 45, hip_twist 50, knee 130, shoulder_flex 25, l_shoulder_abduct 15, r_shoulder_abduct 22, elbow 45
hug_knees: hip_flex 120, hip_abduct -4, knee 130, spine_flex 45, shoulder_flex 70, elbow 60, neck_flex 25
kneel: knee 90, ankle 45, shoulder_abduct 8
kneel_one: l_hip_flex 90, l_knee 90, r_knee 92, r_ankle -20, shoulder_flex 15, elbow 40
sit_on_heels: hip_flex 65, knee 148, ankle 48, shoulder_flex 25, elbow 45
squat: hip_flex 115, hip_abduct 20, hip_twist 20, knee 130, ankle -25, spine_flex 25, shoulder_flex 80
half_squat: hip_flex 70, knee 80, ankle -22, spine_flex 15, shoulder_flex 85
lie_back: shoulder_abduct 20; tilt -90 0
lie_back_relaxed: l_shoulder_flex 64, r_shoulder_flex 60, shoulder_abduct 115, elbow 120, l_knee 70, l_hip_flex 45; tilt -90 0
lie_front: shoulder_abduct 90, elbow 80, shoulder_twist 80, neck_twist 50; tilt 90 0
lie_side: hip_flex 45, knee 60, shoulder_flex 80, elbow 80, neck_bend 8; tilt 0 90
lunge: l_hip_flex 85, l_knee 90, r_hip_flex -25, r_knee 20, r_ankle -20, shoulder_abduct 15
side_lunge: l_hip_flex 65, l_hip_abduct 35, l_knee 85, r_hip_abduct 40, shoulder_flex 50, spine_flex 20
run_a: l_hip_flex 65, l_knee 95, r_hip_flex -20, r_knee 25, r_ankle 25, r_shoulder_flex 45, l_shoulder_flex -50, elbow 92, spine_flex 8
run_b: l_hip_flex 30, l_knee 25, r_hip_flex 5, r_knee 115, r_shoulder_flex 15, l_shoulder_flex -20, elbow 95, spine_flex 6
sprint_start: l_hip_flex 120, l_knee 95, r_hip_flex 85, r_knee 65, spine_flex 30, neck_flex -25, shoulder_flex 95, shoulder_abduct 10; tilt 40 0
hurdle: l_hip_flex 100, l_knee 10, r_hip_abduct 75, r_hip_flex 40, r_knee 115, spine_flex 40, r_shoulder_flex 85, l_shoulder_flex -35, l_elbow 80
long_jump: hip_flex 90, knee 20, spine_flex 35, shoulder_flex 100
high_jump: spine_flex -35, neck_flex -20, hip_flex -20, knee 80, shoulder_abduct 40; tilt -80 10
jump_up: knee 20, hip_flex -5, ankle 45, shoulder_flex 160, spine_flex -10
jump_tuck: hip_flex 115, knee 130, spine_flex 20, shoulder_flex 60, elbow 60
star_jump: hip_abduct 40, shoulder_flex 70, shoulder_abduct 110, ankle 35
throw_back: r_shoulder_abduct 95, r_shoulder_flex -15, r_shoulder_twist 80, r_elbow 95, l_shoulder_flex 75, l_shoulder_abduct 30, spine_twist -35, l_hip_flex 45, l_knee 35
throw_release: r_shoulder_flex 120, r_shoulder_abduct 60, r_elbow 25, spine_flex 20, spine_twist 25, l_hip_flex 55, l_knee 45, r_hip_flex -20, r_knee 30
pitch_windup: l_hip_flex 105, l_knee 105, shoulder_flex 45, shoulder_twist -45, l_shoulder_abduct 1, l_elbow 110, r_elbow 115, spine_twist -20
shot_put: r_shoulder_abduct 70, r_elbow 145, l_shoulder_flex 60, l_shoulder_abduct 70, r_hip_flex 60, r_knee 70, spine_twist -30, spine_bend -15
kick_front: r_hip_flex 95, r_knee 15, r_ankle 30, l_knee 10, l_shoulder_flex 50, l_elbow 50, r_shoulder_flex -35, spine_flex 12
kick_side: r_hip_abduct 80, r_hip_flex 25, l_knee 12, spine_bend 30, shoulder_flex 40, elbow 110, r_ankle -10
kick_swing: r_hip_flex -30, r_knee 85, r_ankle 30, l_hip_flex 15, l_knee 20, l_shoulder_abduct 80, r_shoulder_abduct 35, spine_twist -20
karate_guard: shoulder_flex 45, elbow 110, l_hip_flex 45, l_knee 45, r_hip_flex 5, r_knee 25, hip_abduct 10
punch: r_shoulder_flex 88, r_elbow 5, r_pronation 75, l_shoulder_flex 30, l_elbow 130, spine_twist 30, l_hip_flex 35, l_knee 35
serve_toss: l_shoulder_flex 160, r_shoulder_abduct 85, r_shoulder_twist 40, r_elbow 100, spine_flex -15, knee 25, hip_flex 10
serve_hit: r_shoulder_flex 150, r_shoulder_abduct 60, r_elbow 10, l_shoulder_flex 40, l_elbow 90, spine_bend 18, ankle 40
forehand: r_shoulder_abduct 70, r_shoulder_flex 10, r_elbow 40, l_shoulder_flex 70, l_elbow 30, spine_twist -40, hip_flex 35, knee 45, hip_abduct 20
backhand: r_shoulder_flex 60, r_shoulder_abduct -45, r_elbow 60, l_shoulder_flex 45, l_elbow 60, spine_twist 40, hip_flex 30, knee 40
smash: r_shoulder_abduct 120, r_shoulder_flex 60, r_elbow 90, l_shoulder_flex 120, spine_flex -15, r_hip_flex 40, r_knee 70
golf_address: spine_flex 30, hip_flex 30, knee 18, shoulder_flex 45, shoulder_twist -20, elbow 8, neck_flex 15, hip_abduct 12
golf_top: l_shoulder_flex 110, l_shoulder_abduct -35, l_elbow 15, r_shoulder_flex 70, r_shoulder_abduct 50, r_elbow 110, spine_twist -42, hip_flex 20, knee 20
golf_finish: r_shoulder_flex 120, r_shoulder_abduct -30, r_elbow 60, l_shoulder_flex 80, l_shoulder_abduct 60, l_elbow 120, spine_twist 40, r_knee 30, r_ankle 35
bat_ready: l_shoulder_flex 75, l_shoulder_abduct -35, l_elbow 75, r_shoulder_abduct 65, r_shoulder_flex 30, r_elbow 130, hip_flex 30, knee 35, hip_abduct 15, neck_twist 60
bat_swing: l_shoulder_flex 70, l_shoulder_abduct 10, l_elbow 15, r_shoulder_flex 70, r_shoulder_abduct -15, r_elbow 35, spine_twist 25, hip_abduct 22, r_knee 40, l_knee 5, hip_flex 15
basketball_shot: r_shoulder_flex 125, r_elbow 70, l_shoulder_flex 115, l_elbow 60, knee 15, ankle 35, r_wrist_flex -40
dribble: r_shoulder_flex 25, r_elbow 60, r_pronation 75, l_shoulder_abduct 35, l_elbow 60, hip_flex 50, knee 55, spine_flex 20
goalkeeper: hip_flex 50, knee 55, hip_abduct 18, spine_flex 20, shoulder_flex 35, shoulder_abduct 45, elbow 60
volleyball_dig: shoulder_flex 55, shoulder_twist -15, elbow 3, hip_flex 65, knee 75, spine_flex 25, neck_flex -20
dive_save: shoulder_flex 150, shoulder_abduct 30, hip_flex 10, l_hip_abduct 20, knee 25; tilt 20 75
swim_crawl: l_shoulder_flex 170, r_shoulder_flex -20, r_elbow 30, neck_twist -50, ankle 45, l_hip_flex 12; tilt 85 10
swim_butterfly: shoulder_abduct 110, shoulder_flex 30, neck_flex -30, knee 25, ankle 45, spine_flex -15; tilt 75 0
swim_back: l_shoulder_flex 165, r_shoulder_abduct 15, ankle 40; tilt -85 0
dive: shoulder_flex 172, spine_flex 10, ankle 48, hip_flex 20; tilt 130 0
dive_pike: hip_flex 125, spine_flex 50, shoulder_flex 90, ankle 48; tilt 60 0
cycling: spine_flex 40, hip_flex 75, l_hip_flex 100, knee 70, l_knee 100, r_knee 45, shoulder_flex 85, elbow 20, neck_flex -35
rowing: hip_flex 110, knee 110, spine_flex 30, shoulder_flex 85, elbow 5
climb_reach: l_shoulder_flex 165, l_elbow 20, r_shoulder_flex 90, r_shoulder_abduct 40, r_elbow 100, r_hip_flex 95, r_hip_abduct 40, r_knee 110, l_ankle 25
hang: shoulder_flex 165, shoulder_abduct 30, knee 10, ankle 25
pull_up: shoulder_flex 60, shoulder_abduct 50, elbow 140, knee 40
skate: spine_flex 30, l_hip_flex 75, l_knee 85, r_hip_flex -15, r_hip_abduct 45, r_knee 15, r_shoulder_flex -45, l_shoulder_flex 50, l_elbow 60, r_elbow 10
snowboard: hip_flex 55, knee 70, hip_abduct 22, spine_flex 15, spine_twist 30, shoulder_abduct 50, elbow 30, neck_twist 55
ski: hip_flex 65, knee 70, ankle -24, spine_flex 25, shoulder_flex 35, shoulder_abduct 20, elbow 75
surf: l_hip_flex 65, l_knee 70, r_hip_flex 40, r_knee 75, hip_abduct 25, l_shoulder_abduct 85, r_shoulder_abduct 75, spine_flex 20, spine_twist 25
arabesque: r_hip_flex -35, r_hip_abduct 20, spine_flex -20, l_shoulder_flex 110, r_shoulder_abduct 90, ankle 45; tilt 35 0
pirouette: r_hip_flex 55, r_hip_abduct 55, r_hip_twist 50, r_knee 115, shoulder_flex 60, shoulder_twist -30, elbow 60, l_ankle 48
disco: r_shoulder_flex 100, r_shoulder_abduct 100, l_shoulder_abduct 35, l_elbow 90, l_shoulder_twist -30, l_hip_abduct 25, r_knee 20
dance_twist: spine_twist 35, spine_bend 12, l_shoulder_flex 60, l_elbow 80, r_shoulder_abduct 60, r_elbow 70, hip_flex 25, knee 35
grand_jete: l_hip_flex 95, r_hip_flex -35, r_knee 15, l_knee 5, ankle 48, shoulder_abduct 95, spine_flex -15
handstand: shoulder_flex 172, neck_flex -25, ankle 45; tilt 180 0
handstand_split: shoulder_flex 172, l_hip_flex 80, r_hip_flex -30, ankle 45, neck_flex -25; tilt 180 0
headstand: shoulder_flex 110, elbow 85, ankle 30, hip_flex 5; tilt 180 0
cartwheel: shoulder_flex 70, shoulder_abduct 130, hip_abduct 60, ankle 40; tilt 0 110
bridge: spine_flex -40, neck_flex -40, hip_flex -30, knee 75, shoulder_flex 172, wrist_flex -60; tilt -90 0
side_split: hip_abduct 84, hip_flex 15, hip_twist 40, shoulder_abduct 80, ankle 40
front_split: l_hip_flex 100, r_hip_flex -35, l_knee 0, shoulder_abduct 95, ankle 45
somersault: l_hip_flex 125, r_hip_flex 124, hip_abduct -5, knee 135, spine_flex 60, neck_flex 40, shoulder_flex 70, elbow 60; tilt 150 0
push_up: shoulder_flex 85, wrist_flex -65, toes 45, ankle -15; tilt 80 0
push_up_low: shoulder_flex 10, shoulder_abduct 55, elbow 110, wrist_flex -60, toes 45; tilt 85 0
plank_side: l_shoulder_abduct 90, r_shoulder_abduct 100; tilt 0 65
sit_up: hip_flex 70, knee 90, spine_flex 45, shoulder_flex 50, shoulder_abduct 110, l_elbow 132, r_elbow 135; tilt -50 0
downward_dog: hip_flex 100, shoulder_flex 165, ankle -15, wrist_flex -55, neck_flex 10; tilt 125 0
cobra: spine_flex -38, neck_flex -30, shoulder_flex 30, elbow 30, ankle 45; tilt 75 0
warrior: l_hip_flex 70, l_hip_abduct 30, l_knee 85, r_hip_abduct 45, r_hip_flex -10, shoulder_abduct 90, neck_twist 60
tree: r_hip_flex 50, r_hip_abduct 60, r_hip_twist 50, r_knee 130, shoulder_flex 165, elbow 15
triangle: spine_bend 40, hip_abduct 35, l_hip_flex 25, l_shoulder_abduct 90, r_shoulder_abduct 100, neck_twist -50; tilt 0 25
child_pose: hip_flex 128, knee 148, spine_flex 50, shoulder_flex 160, ankle 48, neck_flex 10; tilt 60 0
crawl: hip_flex 90, knee 90, shoulder_flex 88, wrist_flex -60, neck_flex -25, ankle 40; tilt 85 0
fall: shoulder_flex 70, shoulder_abduct 70, elbow 30, hip_flex 35, l_hip_abduct 30, knee 50, spine_twist 15; tilt -45 25
"""


def _read(line: str) -> tuple[str, NDArray[np.floating], tuple[float, float]]:
    name, _, rest = line.partition(": ")
    angles, _, tilt = rest.partition("; tilt ")
    pairs = (item.split() for item in angles.split(", "))
    pitch, roll = (float(v) for v in (tilt or "0 0").split())
    return name, anatomy.vector({key: float(value) for key, value in pairs}), (pitch, roll)


_KEYS = [_read(line) for line in _TABLE.strip().splitlines()]
KEYS: tuple[str, ...] = tuple(name for name, _, _ in _KEYS)
ANGLES: NDArray[np.floating] = np.stack([angles for _, angles, _ in _KEYS])
"""(N, D) degrees in the order of `anatomy.NAMES`."""
TILTS: NDArray[np.floating] = np.array([tilt for _, _, tilt in _KEYS])
"""(N, 2) pitch and roll, degrees."""
