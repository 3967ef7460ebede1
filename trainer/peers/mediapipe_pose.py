"""MediaPipe Pose (Apache-2.0), the whole call on single pictures, as a program for `reppose-train benchmarks --peer`.

It runs in an environment of its own, with mediapipe 0.10.21 and nothing of this project:

    python -m venv peers && peers/bin/pip install mediapipe==0.10.21
    reppose-train benchmarks --data DATA --peer peers/bin/python

One JSON document on each line of stdin, one back on each of stdout:
`{"crops": in.npy, "out": out.npz}` writes `points` (N, K, 2) in pixels of the (N, h, w, 3) crops, and `scores` (N, K),
0 where nobody was found; `{"time": in.npy, "calls": n}` tells the processor time of a call in milliseconds.
The first line that it writes says what it is.
"""

from __future__ import annotations

import json
import os
import sys
import time

import mediapipe
import numpy as np

NAMES = {
    "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8,
    "left_shoulder": 11, "right_shoulder": 12, "left_elbow": 13, "right_elbow": 14, "left_wrist": 15,
    "right_wrist": 16, "left_hip": 23, "right_hip": 24, "left_knee": 25, "right_knee": 26, "left_ankle": 27,
    "right_ankle": 28,
}  # fmt: skip


def main() -> None:
    """Answer until stdin ends."""
    pose = mediapipe.solutions.pose.Pose(static_image_mode=True, model_complexity=1)
    pose.process(np.zeros((256, 192, 3), np.uint8))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what its libraries print is no answer
    about = {"name": f"MediaPipe Pose {mediapipe.__version__}, whole call", "licence": "Apache-2.0"}
    print(json.dumps(about | {"keypoints": list(NAMES)}), file=answers, flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        if "crops" in wanted:
            points, scores = zip(*(found(pose, crop) for crop in np.load(wanted["crops"])), strict=True)
            np.savez(wanted["out"], points=np.array(points), scores=np.array(scores))
            answer = {}
        else:
            crop = np.load(wanted["time"])[0]
            began = time.process_time()
            for _ in range(wanted["calls"]):
                pose.process(crop)
            answer = {"ms": (time.process_time() - began) / wanted["calls"] * 1e3}
        print(json.dumps(answer), file=answers, flush=True)


def found(pose, crop):
    """Points (K, 2) and scores (K,) of a crop."""
    landmarks = pose.process(np.ascontiguousarray(crop)).pose_landmarks
    if landmarks is None:
        return np.zeros((len(NAMES), 2)), np.zeros(len(NAMES))
    height, width = crop.shape[:2]
    picked = [landmarks.landmark[index] for index in NAMES.values()]
    points = [(each.x * width - 0.5, each.y * height - 0.5) for each in picked]
    return np.array(points), np.array([each.visibility for each in picked])


if __name__ == "__main__":
    main()
