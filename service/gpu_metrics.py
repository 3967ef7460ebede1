"""Prometheus series of NVIDIA GPUs, asked of the driver at each scrape.

The driver's own management library (NVML) is called as it is: it comes with every driver, and into containers with the
capability `utility`. Where it is missing, or a GPU does not tell something (a slice of one does not), there is no such
series.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily

LIBRARY = "libnvidia-ml.so.1"
_UUID_BYTES = 96


class _Utilisation(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class GpuCollector:
    """All GPUs that this process may see, whether it uses them or not.

    Args:
        library: name of the shared library, or path.

    Raises:
        OSError: there is no such library, or no driver behind it.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        self._nvml = ctypes.CDLL(library)
        if self._nvml.nvmlInit_v2() != 0:
            raise OSError(f"{library}: no driver answers")

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """For the registry: the names."""
        return iter(families())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """For the registry: what the GPUs say now."""
        busy, used, total = told = families()
        count = ctypes.c_uint()
        if self._nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return iter(told)
        for index in range(count.value):
            handle = ctypes.c_void_p()
            if self._nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) != 0:
                continue
            uuid = ctypes.create_string_buffer(_UUID_BYTES)
            self._nvml.nvmlDeviceGetUUID(handle, uuid, ctypes.c_uint(_UUID_BYTES))
            labels = [uuid.value.decode("ascii", "replace") or str(index)]
            share, memory = _Utilisation(), _Memory()
            if self._nvml.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(share)) == 0:
                busy.add_metric(labels, share.gpu / 100)
            if self._nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0:
                used.add_metric(labels, memory.used)
                total.add_metric(labels, memory.total)
        return iter(told)


def families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
    """The series, without values: how busy, memory in use, memory."""
    return (
        GaugeMetricFamily(
            "reppose_gpu_busy_ratio",
            "Share of the last moments in which the GPU ran something, of this service or of others, 0 to 1.",
            labels=["gpu"],
        ),
        GaugeMetricFamily(
            "reppose_gpu_memory_used_bytes", "Memory of the GPU in use, by whomever.", labels=["gpu"]
        ),
        GaugeMetricFamily("reppose_gpu_memory_bytes", "Memory of the GPU.", labels=["gpu"]),
    )
