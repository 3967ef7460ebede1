"""Ask the service from a program of one's own: needs gRPC, NumPy and OpenCV, and neither the server nor ONNX Runtime.

from service.client import Client

with Client("127.0.0.1:50051") as client:
    poses = client.estimate(open("photo.jpg", "rb").read())
"""

from service.client.aio import AsyncClient, AsyncStream, Patience
from service.client.answers import LOST, SUPERSEDED, Answer, ClientError, Person, Poses, Said, Smoothed
from service.client.blocking import Client, Stream
from service.client.encryption import credentials
from service.client.pace import Pace, Rates

__all__ = [
    "LOST",
    "SUPERSEDED",
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Client",
    "ClientError",
    "Pace",
    "Patience",
    "Person",
    "Poses",
    "Rates",
    "Said",
    "Smoothed",
    "Stream",
    "credentials",
]
