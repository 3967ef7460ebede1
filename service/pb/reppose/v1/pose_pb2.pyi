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
BOX_SOURCE_UNSPECIFIED: BoxSource
BOX_SOURCE_REQUEST: BoxSource
BOX_SOURCE_FOUND: BoxSource
BOX_SOURCE_IMAGE: BoxSource

class EstimateRequest(_message.Message):
    __slots__ = ("image", "boxes", "model", "decoder", "compare", "pixels", "heatmaps")
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DECODER_FIELD_NUMBER: _ClassVar[int]
    COMPARE_FIELD_NUMBER: _ClassVar[int]
    PIXELS_FIELD_NUMBER: _ClassVar[int]
    HEATMAPS_FIELD_NUMBER: _ClassVar[int]
    image: bytes
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    model: str
    decoder: str
    compare: bool
    pixels: Pixels
    heatmaps: bool
    def __init__(self, image: _Optional[bytes] = ..., boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ..., model: _Optional[str] = ..., decoder: _Optional[str] = ..., compare: _Optional[bool] = ..., pixels: _Optional[_Union[Pixels, _Mapping]] = ..., heatmaps: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("box", "box_source", "score", "keypoints", "comparison", "heatmaps")
    BOX_FIELD_NUMBER: _ClassVar[int]
    BOX_SOURCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    KEYPOINTS_FIELD_NUMBER: _ClassVar[int]
    COMPARISON_FIELD_NUMBER: _ClassVar[int]
    HEATMAPS_FIELD_NUMBER: _ClassVar[int]
    box: Box
    box_source: BoxSource
    score: float
    keypoints: _containers.RepeatedCompositeFieldContainer[Keypoint]
    comparison: Comparison
    heatmaps: Heatmaps
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., box_source: _Optional[_Union[BoxSource, str]] = ..., score: _Optional[float] = ..., keypoints: _Optional[_Iterable[_Union[Keypoint, _Mapping]]] = ..., comparison: _Optional[_Union[Comparison, _Mapping]] = ..., heatmaps: _Optional[_Union[Heatmaps, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("name", "x", "y", "score")
    NAME_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    name: str
    x: float
    y: float
    score: float
    def __init__(self, name: _Optional[str] = ..., x: _Optional[float] = ..., y: _Optional[float] = ..., score: _Optional[float] = ...) -> None: ...

class EstimateStreamRequest(_message.Message):
    __slots__ = ("sequence", "frame")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    frame: EstimateRequest
    def __init__(self, sequence: _Optional[int] = ..., frame: _Optional[_Union[EstimateRequest, _Mapping]] = ...) -> None: ...

class EstimateStreamResponse(_message.Message):
    __slots__ = ("sequence", "prediction", "error")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    prediction: EstimateResponse
    error: Error
    def __init__(self, sequence: _Optional[int] = ..., prediction: _Optional[_Union[EstimateResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

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
