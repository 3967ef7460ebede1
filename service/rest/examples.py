"""What the API's documentation shows of requests, answers and errors. A test holds each against its schema."""

from __future__ import annotations

from typing import Any

_KEYPOINTS = [
    {"name": "nose", "x": 301.214, "y": 88.4, "score": 0.9711},
    {"name": "left_eye", "x": 309.87, "y": 80.112, "score": 0.9342},
]
_POSE = {"box": [212.0, 31.5, 180.25, 402.0], "score": 0.9527, "keypoints": _KEYPOINTS}
_ANSWER = {
    "model": "body19-small",
    "version": "1",
    "decoder": "dark",
    "image": {"width": 640, "height": 480},
}

POSES: dict[str, dict[str, Any]] = {
    "found": {
        "summary": "No box was sent: the service found the person (keypoints shortened)",
        "value": _ANSWER | {"poses": [_POSE | {"box_source": "found"}]},
    },
    "boxes": {
        "summary": "With boxes=[[212, 31.5, 180.25, 402], [10, 20, 90, 200]] (keypoints shortened)",
        "value": _ANSWER
        | {
            "poses": [
                _POSE | {"box_source": "request"},
                {
                    "box": [10.0, 20.0, 90.0, 200.0],
                    "box_source": "request",
                    "score": 0.4106,
                    "keypoints": [{"name": "nose", "x": 52.75, "y": 41.003, "score": 0.4106}],
                },
            ]
        },
    },
    "compare": {
        "summary": "With compare=true (readings and keypoints shortened)",
        "value": _ANSWER
        | {
            "poses": [
                _POSE
                | {
                    "box_source": "found",
                    "comparison": {
                        "disagreement_px": 1.204,
                        "readings": [
                            {"decoder": "argmax_shift", "keypoints": [_KEYPOINTS[0] | {"x": 300.01}]},
                            {"decoder": "dark", "keypoints": _KEYPOINTS},
                        ],
                    },
                }
            ]
        },
    },
    "heatmaps": {
        "summary": "With heatmaps=true (here of one keypoint, two rows and three columns)",
        "value": _ANSWER
        | {
            "poses": [
                _POSE
                | {
                    "box_source": "found",
                    "heatmaps": {
                        "shape": [1, 2, 3],
                        "data": "AAAAAAAAgD4AAAAAAAAAPwAAgD8AAAA/",
                        "to_image": [[20.1, 0.0, 176.2], [0.0, 20.1, -10.4]],
                    },
                }
            ]
        },
    },
}
"""Answers to a pose request, by what was asked for."""

MODELS: dict[str, Any] = {
    "default": "body19-small@1",
    "decoders": ["argmax_shift", "dark", "dsnt", "udp"],
    "models": [
        {
            "name": "body19-small",
            "version": "1",
            "default": True,
            "description": "17 COCO keypoints, neck and top of the head of one person",
            "licence": "see the model card",
            "skeleton": "body19",
            "keypoints": ["nose", "left_eye", "right_eye"],
            "bones": [[0, 1], [0, 2]],
            "input": {"width": 192, "height": 256},
            "padding": 1.25,
            "decoder": "dark",
            "precision": "int8",
            "provider": "cpu",
        }
    ],
}

ERRORS: dict[str, dict[str, str]] = {
    "invalid_request": {
        "message": "Input should be a valid boolean, unable to interpret input",
        "field": "render",
    },
    "invalid_boxes": {
        "message": "box 1 lies outside of the image, which has 640 x 480 pixels",
        "field": "boxes",
    },
    "invalid_image": {"message": "the image is truncated or broken", "field": "image"},
    "image_too_large": {"message": "the image has more than 20971520 bytes", "field": "image"},
    "unsupported_media": {
        "message": "send the image as it is with Content-Type image/jpeg (or the like), or as the file `image` of "
        "multipart/form-data; not 'text/plain'",
        "field": "image",
    },
    "unknown_model": {"message": "no model 'body20' is served; known: body19-small@1", "field": "model"},
    "unknown_decoder": {
        "message": "no decoder 'drak'; known: argmax_shift, dark, dsnt, udp",
        "field": "decoder",
    },
    "overloaded": {"message": "256 requests are waiting already; try again a little later"},
    "deadline_exceeded": {"message": "the answer would come after the deadline of the request"},
    "not_ready": {"message": "the service is stopping"},
    "internal": {"message": "the service failed to answer; its log says why"},
    "unauthenticated": {"message": "send a key or token: Authorization: Bearer <key>"},
    "permission_denied": {"message": "this needs the role predict, which the credential does not have"},
    "rate_limited": {"message": "too many requests and frames for this client; try again in 0.12 s"},
    "reload_failed": {
        "message": "/models/body19-small/2/model.onnx: sha256 5ca1ab1e... instead of 0ddba11..."
    },
}
"""Message and field of the errors of these routes, by code."""

SESSION_ERRORS: dict[str, dict[str, str]] = {
    "unknown_session": {
        "message": "there is no session of this name; it may have been idle for too long",
        "field": "session",
    },
    "session_conflict": {"message": "the session was continued elsewhere, or is gone", "field": "session"},
    "broken_session": {
        "message": "the session is of version 2; this service reads version 1",
        "field": "session",
    },
    "invalid_token": {"message": "the resume token has expired", "field": "resume_token"},
    "store_unavailable": {"message": "the sessions' store does not answer"},
}
"""Those that only sessions have."""

TRACKED: dict[str, dict[str, Any]] = {
    "tracked": {
        "summary": "A person who was followed here from the frames before (keypoints shortened)",
        "value": {
            "session": {
                "model": "body19-small@1",
                "decoder": "dark",
                "smoothing": {"name": "one_euro", "parameters": {}},
                "tracking": True,
                "mode": "live",
                "mailbox": 1,
                "max_age_ms": 1000.0,
                "resumed": True,
                "last_sequence": 41,
                "last_timestamp_s": 1.367,
            },
            "sequence": 42,
            "raw": _ANSWER | {"poses": [_POSE | {"box_source": "request"}]},
            "tracks": [
                {
                    "id": 1,
                    "keypoints": [{"name": "nose", "x": 301.004, "y": 88.217, "score": 0.9711}],
                    "lag_ms": 4.1,
                    "lag_frames": 0.124,
                }
            ],
            "timing": {"queue_ms": 0.21, "decode_ms": 0.83, "infer_ms": 3.3, "age_ms": 5.07},
        },
    },
}
"""Answers to a frame of a session."""


def errors(*codes: str) -> dict[str, Any]:
    """The content of a response that is one of these errors."""
    texts = ERRORS | SESSION_ERRORS
    shown = {
        code: {"value": {"error": {"code": code, **texts[code]}}} for code in sorted(codes) if code in texts
    }
    return {"application/json": {"examples": shown}}
