from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class BoxSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    BOX_SOURCE_UNSPECIFIED: _ClassVar[BoxSource]
    BOX_SOURCE_REQUEST: _ClassVar[BoxSource]
    BOX_SOURCE_FOUND: _ClassVar[BoxSource]
    BOX_SOURCE_IMAGE: _ClassVar[BoxSource]

class StreamMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STREAM_MODE_UNSPECIFIED: _ClassVar[StreamMode]
    STREAM_MODE_LIVE: _ClassVar[StreamMode]
    STREAM_MODE_FILE: _ClassVar[StreamMode]

class DropReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DROP_REASON_UNSPECIFIED: _ClassVar[DropReason]
    DROP_REASON_SUPERSEDED: _ClassVar[DropReason]
    DROP_REASON_DEADLINE: _ClassVar[DropReason]
    DROP_REASON_OVERLOADED: _ClassVar[DropReason]
    DROP_REASON_DRAINING: _ClassVar[DropReason]
BOX_SOURCE_UNSPECIFIED: BoxSource
BOX_SOURCE_REQUEST: BoxSource
BOX_SOURCE_FOUND: BoxSource
BOX_SOURCE_IMAGE: BoxSource
STREAM_MODE_UNSPECIFIED: StreamMode
STREAM_MODE_LIVE: StreamMode
STREAM_MODE_FILE: StreamMode
DROP_REASON_UNSPECIFIED: DropReason
DROP_REASON_SUPERSEDED: DropReason
DROP_REASON_DEADLINE: DropReason
DROP_REASON_OVERLOADED: DropReason
DROP_REASON_DRAINING: DropReason

class EstimateRequest(_message.Message):
    __slots__ = ("image", "boxes", "model", "decoder", "compare", "pixels", "heatmaps", "min_presence")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    HEATMAPS_FIELD_NUMBER: _ClassVar[int]
    MIN_PRESENCE_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    model: str
    decoder: str
    compare: bool
    pixels: Pixels
    heatmaps: bool
    min_presence: float
    def __init__(self, image: _Optional[bytes] = ..., boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ..., model: _Optional[str] = ..., decoder: _Optional[str] = ..., compare: _Optional[bool] = ..., pixels: _Optional[_Union[Pixels, _Mapping]] = ..., heatmaps: _Optional[bool] = ..., min_presence: _Optional[float] = ...) -> None: ...

class Pixels(_message.Message):
    __slots__ = ("rgb", "width", "height")
    RGB_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    rgb: bytes
    width: int
    height: int
    def __init__(self, rgb: _Optional[bytes] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x", "y", "width", "height")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    width: float
    height: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ..., width: _Optional[float] = ..., height: _Optional[float] = ...) -> None: ...

class EstimateResponse(_message.Message):
    __slots__ = ("model", "version", "decoder", "image", "poses")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    POSES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: str
    decoder: str
    image: ImageSize
    poses: _containers.RepeatedCompositeFieldContainer[Pose]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[str] = ..., decoder: _Optional[str] = ..., image: _Optional[_Union[ImageSize, _Mapping]] = ..., poses: _Optional[_Iterable[_Union[Pose, _Mapping]]] = ...) -> None: ...

class ImageSize(_message.Message):
    __slots__ = ("width", "height")
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    width: int
    height: int
    def __init__(self, width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class Pose(_message.Message):
    __slots__ = ("box", "box_source", "score", "keypoints", "comparison", "heatmaps", "presence", "classes")
    BOX_FIELD_NUMBER: _ClassVar[int]
    BOX_SOURCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    HEATMAPS_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    box: Box
    box_source: BoxSource
    score: float
    keypoints: _containers.RepeatedCompositeFieldContainer[Keypoint]
    comparison: Comparison
    heatmaps: Heatmaps
    presence: float
    classes: _containers.RepeatedCompositeFieldContainer[Classified]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., box_source: _Optional[_Union[BoxSource, str]] = ..., score: _Optional[float] = ..., keypoints: _Optional[_Iterable[_Union[Keypoint, _Mapping]]] = ..., comparison: _Optional[_Union[Comparison, _Mapping]] = ..., heatmaps: _Optional[_Union[Heatmaps, _Mapping]] = ..., presence: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[Classified, _Mapping]]] = ...) -> None: ...

class Classified(_message.Message):
    __slots__ = ("of", "label", "probability", "probabilities")
    OF_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    of: str
    label: str
    probability: float
    probabilities: _containers.RepeatedCompositeFieldContainer[ClassProbability]
    def __init__(self, of: _Optional[str] = ..., label: _Optional[str] = ..., probability: _Optional[float] = ..., probabilities: _Optional[_Iterable[_Union[ClassProbability, _Mapping]]] = ...) -> None: ...

class ClassProbability(_message.Message):
    __slots__ = ("label", "probability")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    label: str
    probability: float
    def __init__(self, label: _Optional[str] = ..., probability: _Optional[float] = ...) -> None: ...

class Heatmaps(_message.Message):
    __slots__ = ("keypoints", "rows", "columns", "data", "to_image")
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TO_IMAGE_FIELD_NUMBER: _ClassVar[int]
    keypoints: int
    rows: int
    columns: int
    data: bytes
    to_image: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, keypoints: _Optional[int] = ..., rows: _Optional[int] = ..., columns: _Optional[int] = ..., data: _Optional[bytes] = ..., to_image: _Optional[_Iterable[float]] = ...) -> None: ...

class Comparison(_message.Message):
    __slots__ = ("disagreement_px", "readings")
    DISAGREEMENT_PX_FIELD_NUMBER: _ClassVar[int]
    READINGS_FIELD_NUMBER: _ClassVar[int]
    disagreement_px: float
    readings: _containers.RepeatedCompositeFieldContainer[Reading]
    def __init__(self, disagreement_px: _Optional[float] = ..., readings: _Optional[_Iterable[_Union[Reading, _Mapping]]] = ...) -> None: ...

class Reading(_message.Message):
    __slots__ = ("decoder", "keypoints")
    DECODER_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    decoder: str
    keypoints: _containers.RepeatedCompositeFieldContainer[Keypoint]
    def __init__(self, decoder: _Optional[str] = ..., keypoints: _Optional[_Iterable[_Union[Keypoint, _Mapping]]] = ...) -> None: ...

class Keypoint(_message.Message):
    __slots__ = ("name", "x", "y", "score", "z")
    NAME_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    name: str
    x: float
    y: float
    score: float
    z: float
    def __init__(self, name: _Optional[str] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., score: _Optional[float] = ..., z: _Optional[float] = ...) -> None: ...

class EstimateStreamRequest(_message.Message):
    __slots__ = ("sequence", "frame", "config", "timestamp_s", "want_token")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    WANT_TOKEN_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    frame: EstimateRequest
    config: StreamConfig
    timestamp_s: float
    want_token: bool
    def __init__(self, sequence: _Optional[int] = ..., frame: _Optional[_Union[EstimateRequest, _Mapping]] = ..., config: _Optional[_Union[StreamConfig, _Mapping]] = ..., timestamp_s: _Optional[float] = ..., want_token: _Optional[bool] = ...) -> None: ...

class StreamConfig(_message.Message):
    __slots__ = ("session", "resume_token", "model", "decoder", "smoothing", "tracking", "mode", "mailbox", "max_age_ms")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    TRACKING_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    session: str
    resume_token: str
    model: str
    decoder: str
    smoothing: Smoothing
    tracking: bool
    mode: StreamMode
    mailbox: int
    max_age_ms: float
    def __init__(self, session: _Optional[str] = ..., resume_token: _Optional[str] = ..., model: _Optional[str] = ..., decoder: _Optional[str] = ..., smoothing: _Optional[_Union[Smoothing, _Mapping]] = ..., tracking: _Optional[bool] = ..., mode: _Optional[_Union[StreamMode, str]] = ..., mailbox: _Optional[int] = ..., max_age_ms: _Optional[float] = ...) -> None: ...

class Smoothing(_message.Message):
    __slots__ = ("name", "parameters")
    class ParametersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    parameters: _containers.ScalarMap[str, float]
    def __init__(self, name: _Optional[str] = ..., parameters: _Optional[_Mapping[str, float]] = ...) -> None: ...

class EstimateStreamResponse(_message.Message):
    __slots__ = ("sequence", "prediction", "error", "opened", "tracked", "dropped", "closing")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    TRACKED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    CLOSING_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    prediction: EstimateResponse
    error: Error
    opened: Opened
    tracked: TrackedResponse
    dropped: Dropped
    closing: Closing
    def __init__(self, sequence: _Optional[int] = ..., prediction: _Optional[_Union[EstimateResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ..., tracked: _Optional[_Union[TrackedResponse, _Mapping]] = ..., dropped: _Optional[_Union[Dropped, _Mapping]] = ..., closing: _Optional[_Union[Closing, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("model", "decoder", "smoothing", "tracking", "mode", "mailbox", "max_age_ms", "resumed", "last_sequence", "last_timestamp_s")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    TRACKING_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    MAILBOX_FIELD_NUMBER: _ClassVar[int]
    MAX_AGE_MS_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LAST_TIMESTAMP_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    decoder: str
    smoothing: Smoothing
    tracking: bool
    mode: StreamMode
    mailbox: int
    max_age_ms: float
    resumed: bool
    last_sequence: int
    last_timestamp_s: float
    def __init__(self, model: _Optional[str] = ..., decoder: _Optional[str] = ..., smoothing: _Optional[_Union[Smoothing, _Mapping]] = ..., tracking: _Optional[bool] = ..., mode: _Optional[_Union[StreamMode, str]] = ..., mailbox: _Optional[int] = ..., max_age_ms: _Optional[float] = ..., resumed: _Optional[bool] = ..., last_sequence: _Optional[int] = ..., last_timestamp_s: _Optional[float] = ...) -> None: ...

class TrackedResponse(_message.Message):
    __slots__ = ("raw", "tracks", "timing", "resume_token")
    RAW_FIELD_NUMBER: _ClassVar[int]
    TRACKS_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    raw: EstimateResponse
    tracks: _containers.RepeatedCompositeFieldContainer[Track]
    timing: FrameTiming
    resume_token: str
    def __init__(self, raw: _Optional[_Union[EstimateResponse, _Mapping]] = ..., tracks: _Optional[_Iterable[_Union[Track, _Mapping]]] = ..., timing: _Optional[_Union[FrameTiming, _Mapping]] = ..., resume_token: _Optional[str] = ...) -> None: ...

class Track(_message.Message):
    __slots__ = ("id", "keypoints", "lag_ms", "lag_frames", "reset", "presence", "classes")
    ID_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    LAG_MS_FIELD_NUMBER: _ClassVar[int]
    LAG_FRAMES_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    id: int
    keypoints: _containers.RepeatedCompositeFieldContainer[Keypoint]
    lag_ms: float
    lag_frames: float
    reset: str
    presence: float
    classes: _containers.RepeatedCompositeFieldContainer[Classified]
    def __init__(self, id: _Optional[int] = ..., keypoints: _Optional[_Iterable[_Union[Keypoint, _Mapping]]] = ..., lag_ms: _Optional[float] = ..., lag_frames: _Optional[float] = ..., reset: _Optional[str] = ..., presence: _Optional[float] = ..., classes: _Optional[_Iterable[_Union[Classified, _Mapping]]] = ...) -> None: ...

class FrameTiming(_message.Message):
    __slots__ = ("queue_ms", "decode_ms", "infer_ms", "age_ms")
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    INFER_MS_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    queue_ms: float
    decode_ms: float
    infer_ms: float
    age_ms: float
    def __init__(self, queue_ms: _Optional[float] = ..., decode_ms: _Optional[float] = ..., infer_ms: _Optional[float] = ..., age_ms: _Optional[float] = ...) -> None: ...

class Dropped(_message.Message):
    __slots__ = ("reason", "age_ms")
    REASON_FIELD_NUMBER: _ClassVar[int]
    AGE_MS_FIELD_NUMBER: _ClassVar[int]
    reason: DropReason
    age_ms: float
    def __init__(self, reason: _Optional[_Union[DropReason, str]] = ..., age_ms: _Optional[float] = ...) -> None: ...

class Closing(_message.Message):
    __slots__ = ("resume_token", "has_sequence")
    RESUME_TOKEN_FIELD_NUMBER: _ClassVar[int]
    HAS_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    resume_token: str
    has_sequence: bool
    def __init__(self, resume_token: _Optional[str] = ..., has_sequence: _Optional[bool] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("status", "code", "message", "field")
    STATUS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    status: int
    code: str
    message: str
    field: str
    def __init__(self, status: _Optional[int] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...
