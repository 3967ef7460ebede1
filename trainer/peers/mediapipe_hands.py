"""MediaPipe Hands (Apache-2.0), the whole call on single pictures, for `reppose-train benchmarks` and `label` of hands.

It speaks as `mediapipe_pose` does, in the same environment. It looks for palms first; a picture in which it finds none
has no hand for it. That it is content with a chance of 0.1 makes it miss fewer of the pictures here, which show one.
"""

from __future__ import annotations

import json
import os
import sys
import time

import mediapipe
import numpy as np

NAMES = [
    "wrist",
    *(f"thumb_{joint}" for joint in ("cmc", "mcp", "ip", "tip")),
    *(
        f"{finger}_{joint}"
        for finger in ("index", "middle", "ring", "pinky")
        for joint in ("mcp", "pip", "dip", "tip")
    ),
]
"""In the order of its landmarks."""
SURE = 0.1


def main() -> None:
    """Answer until stdin ends."""
    hands = mediapipe.solutions.hands.Hands(
        static_image_mode=True, max_num_hands=1, model_complexity=1, min_detection_confidence=SURE
    )
    hands.process(np.zeros((256, 256, 3), np.uint8))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what its libraries print is no answer
    about = {"name": f"MediaPipe Hands {mediapipe.__version__}, whole call", "licence": "Apache-2.0"}
    print(json.dumps(about | {"keypoints": NAMES}), file=answers, flush=True)
    for line in sys.stdin:
        wanted = json.loads(line)
        if "crops" in wanted:
            points, scores = zip(*(found(hands, crop) for crop in np.load(wanted["crops"])), strict=True)
            np.savez(wanted["out"], points=np.array(points), scores=np.array(scores))
            answer = {}
        else:
            crop = np.load(wanted["time"])[0]
            began = time.process_time()
            for _ in range(wanted["calls"]):
                hands.process(crop)
            answer = {"ms": (time.process_time() - began) / wanted["calls"] * 1e3}
        print(json.dumps(answer), file=answers, flush=True)


def found(hands, crop):
    """Points (K, 2) and scores (K,) of a crop; it has one score for all, of the hand."""
    answer = hands.process(np.ascontiguousarray(crop))
    if answer.multi_hand_landmarks is None:
        return np.zeros((len(NAMES), 2)), np.zeros(len(NAMES))
    height, width = crop.shape[:2]
    points = [
        (each.x * width - 0.5, each.y * height - 0.5) for each in answer.multi_hand_landmarks[0].landmark
    ]
    return np.array(points), np.ones(len(NAMES))


if __name__ == "__main__":
    main()
