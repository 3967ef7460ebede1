"""GPUs are asked by NVML's own calls; here of a library that stands in for the driver's, with the same interface."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.gpu_metrics import GpuCollector
from service.metrics import Metrics

DRIVER = r"""
#include <string.h>
typedef struct { unsigned int gpu, memory; } utilisation;
typedef struct { unsigned long long total, free, used; } memory;
static int gpus[2] = {7, 8};
int nvmlInit_v2(void) { return FAIL; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **gpu) { *gpu = &gpus[index]; return 0; }
int nvmlDeviceGetUUID(void *gpu, char *uuid, unsigned int length) {
    strncpy(uuid, *(int *)gpu == 7 ? "GPU-seven" : "MIG-eight", length);
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *gpu, utilisation *said) {
    if (*(int *)gpu == 8) return 3; /* not supported */
    said->gpu = 42; said->memory = 7;
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *gpu, memory *said) {
    said->total = 80ULL << 30; said->used = *(int *)gpu * (1ULL << 30); said->free = said->total - said->used;
    return 0;
}
"""


def driver(folder: Path, fail: int = 0) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make the stand-in of the driver's library")
    (folder / "nvml.c").write_text(DRIVER)
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", f"-DFAIL={fail}", "-o", library, folder / "nvml.c"]
    subprocess.run(command, check=True, timeout=120)
    return str(library)


def test_each_gpu_says_what_it_can(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(GpuCollector(driver(tmp_path)))
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert [
        (sample.name.removeprefix("reppose_gpu_"), sample.labels["gpu"], sample.value) for sample in samples
    ] == [
        ("busy_ratio", "GPU-seven", 0.42),
        ("memory_used_bytes", "GPU-seven", 7 * 2**30),
        ("memory_used_bytes", "MIG-eight", 8 * 2**30),
        ("memory_bytes", "GPU-seven", 80 * 2**30),
        ("memory_bytes", "MIG-eight", 80 * 2**30),
    ]


def test_without_a_driver_there_is_no_series(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no driver answers"):
        GpuCollector(driver(tmp_path, fail=9))
    with pytest.raises(OSError, match="nowhere"):
        GpuCollector(str(tmp_path / "nowhere.so"))
    metrics = Metrics(CollectorRegistry())
    metrics.watch_gpus(str(tmp_path / "nowhere.so"))
    assert b"reppose_gpu" not in generate_latest(metrics.registry)


def test_gpus_are_watched_once(tmp_path: Path) -> None:
    metrics, library = Metrics(CollectorRegistry()), driver(tmp_path)
    for _ in range(2):  # models were read again
        metrics.watch_gpus(library)
    assert generate_latest(metrics.registry).count(b"# TYPE reppose_gpu_busy_ratio gauge") == 1
