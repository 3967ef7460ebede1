"""The checks, in the order in which they are told. Each takes the settings and yields findings, and changes nothing."""

from __future__ import annotations

import asyncio
import math
import platform
import socket
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from model_zoo import bundle
from model_zoo.bundle import Bundle
from model_zoo.errors import ModelZooError
from service import cpus, runner
from service.doctor import access, machine
from service.doctor.findings import Finding
from service.errors import ServiceError
from service.settings import Effective, Settings

Check = Callable[[Effective], Iterator[Finding]]

_SPARE_FILES = 256
"""Files beside connections: models, libraries, listeners."""
_BYTES_PER_PIXEL = 3


def run(effective: Effective) -> list[Finding]:
    """All findings. A check that breaks is a finding as well."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(effective)
        except Exception as error:  # the others shall still be told
            found.append(Finding(check.__name__, "failed", f"{type(error).__name__}: {error}"))
    return found


def settings(effective: Effective) -> Iterator[Finding]:
    """How many were given, and where."""
    sources = [origin.source for origin in effective.origins.values()]
    counts = [f"{sources.count(each)} from the {each}" for each in ("file", "environment") if each in sources]
    yield Finding("settings", "ok", ", ".join(counts) or "all of them defaults")
    streams, sessions = effective.settings.streams, effective.settings.sessions
    if streams.save_s * 2 > sessions.idle_s:
        yield Finding(
            "settings",
            "warning",
            f"a stream's session is saved every {streams.save_s:g} s and kept for {sessions.idle_s:g} s",
            "let REPPOSE_STREAMS__SAVE_S be less than half of REPPOSE_SESSIONS__IDLE_S",
        )


def versions(effective: Effective) -> Iterator[Finding]:
    """Of what the answers depend on."""
    names = ("reppose", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "numpy", "grpcio")
    yield Finding("versions", "ok", ", ".join([f"Python {platform.python_version()}", *_installed(names)]))


def _installed(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            continue


def models(effective: Effective) -> Iterator[Finding]:
    """Every bundle: its checksums, and that its graph loads and runs by the provider and in the precision asked for."""
    wanted = effective.settings.models
    usable: list[Bundle] = []
    seen: set[tuple[str, str]] = set()
    for root in wanted.roots:
        if not root.is_dir():
            yield Finding(
                "models", "failed", f"{root} is no folder", "REPPOSE_MODELS__ROOTS names folders of bundles"
            )
            continue
        for folder in bundle.discover(root):
            name = (folder.parent.name, folder.name)
            if name not in seen:  # the first root wins
                seen.add(name)
                found = _verified(folder)
                usable += [found] if isinstance(found, Bundle) else []
                yield found if isinstance(found, Finding) else _loaded(found, effective.settings)
    known = {each.name for each in usable} | {f"{each.name}@{each.version}" for each in usable}
    if wanted.default not in known:
        yield Finding(
            "models",
            "failed",
            f"the default model {wanted.default} is not among {', '.join(sorted(known)) or 'them: there is none'}",
            "REPPOSE_MODELS__DEFAULT names it, REPPOSE_MODELS__ROOTS where to look",
        )


def _verified(folder: Path) -> Bundle | Finding:
    try:
        return bundle.read(folder)
    except ModelZooError as error:
        return Finding("models", "failed", str(error), "install the bundle again, or remove it")


def _loaded(found: Bundle, settings: Settings) -> Finding:
    reference = f"{found.name}@{found.version}"
    precision = settings.models.precision
    if precision == "auto":
        precision = "fp32" if found.int8_path is None else "int8"
    began_s = time.perf_counter()
    try:
        loaded = runner.load(found, precision, settings.models.provider)
        loaded.warm_up(settings.batch.size)
    except (ModelZooError, ServiceError) as error:
        return Finding("models", "failed", f"{reference}: {error}")
    took_ms = 1e3 * (time.perf_counter() - began_s)
    text = (
        f"{reference}: checksums right, runs in {precision} on {loaded.provider}, loaded in {took_ms:.0f} ms"
    )
    if precision != "int8" or loaded.provider != "cpu":
        return Finding("models", "ok", text)
    units = machine.integer_units()
    if units:
        return Finding("models", "ok", f"{text}, 8 bits by {', '.join(units)}")
    return Finding(
        "models",
        "warning",
        f"{text}, but the processor has no instructions for 8 bits",
        "sums of products may saturate and gain little: compare with REPPOSE_MODELS__PRECISION=fp32",
    )


def threads(effective: Effective) -> Iterator[Finding]:
    """Workers against what the process may use."""
    batch = effective.settings.batch
    quota, mine = cpus.quota(), cpus.affinity()
    by_device = batch.mode == "pipelined" or effective.settings.models.provider in runner.ON_GPU
    usable = cpus.usable() * (2 if by_device else 1)
    workers = batch.workers or usable
    limit = "no quota" if quota is None else f"a quota of {quota:g}"
    text = f"{workers} workers per model; {len(mine)} of {machine.machine_cpus()} processors by affinity, {limit}"
    if workers > usable:
        yield Finding(
            "threads",
            "warning",
            text,
            f"more than {usable} wait for each other: REPPOSE_BATCH__WORKERS",
        )
    elif batch.pin == "on" and workers < len(mine):
        yield Finding(
            "threads",
            "warning",
            f"{text}; all workers tied to the first {workers}",
            "REPPOSE_BATCH__PIN=on makes several services on this machine choose the same processors",
        )
    else:
        yield Finding("threads", "ok", text)


def memory(effective: Effective) -> Iterator[Finding]:
    """What images of the largest size need while they are decoded, against what there is."""
    limits, batch = effective.settings.limits, effective.settings.batch
    workers = batch.workers or cpus.usable()
    decoded = workers * limits.image_pixels * _BYTES_PER_PIXEL
    waiting = batch.queue * limits.image_bytes
    have = machine.memory_limit()
    text = (
        f"{_size(decoded)} for {workers} images of most pixels, {_size(waiting)} for a queue of the largest"
    )
    if have is None:
        yield Finding("memory", "note", f"{text}; how much there is cannot be told")
    elif decoded > have / 2:
        yield Finding(
            "memory",
            "warning",
            f"{text}; there are {_size(have)}",
            "lower REPPOSE_LIMITS__IMAGE_PIXELS, or give it more memory",
        )
    else:
        yield Finding("memory", "ok", f"{text}; there are {_size(have)}")


def limits(effective: Effective) -> Iterator[Finding]:
    """What one request may ask for, and how many sockets there can be."""
    given = effective.settings
    yield Finding(
        "limits",
        "ok",
        f"{_size(given.limits.image_bytes)}, {given.limits.image_pixels / 1e6:g} million pixels, "
        f"{given.limits.image_side} along a side, {given.limits.boxes} boxes; queue {given.batch.queue}, "
        f"{given.streams.count} streams",
    )
    connections = given.http.connections + given.grpc.connections
    needed, have = connections + _SPARE_FILES, machine.open_files()
    if have < needed:
        yield Finding(
            "limits",
            "warning",
            f"{have} open files for {connections} connections and {_SPARE_FILES} beside",
            f"raise the limit (ulimit -Hn, LimitNOFILE) to {needed}, or lower `connections` of http and grpc",
        )


def ports(effective: Effective) -> Iterator[Finding]:
    """Every pair of settings `host` and `port`: whether one can listen there."""
    for group, host, port in listeners(effective.settings):
        name = f"{group} port"
        if port == 0:
            yield Finding(name, "ok", f"any free one of {host}")
            continue
        try:
            _listen(host, port)
        except OSError as error:
            yield Finding(
                name,
                "failed",
                f"{host}:{port}: {error.strerror or error}",
                f"is the service running already? REPPOSE_{group.upper()}__PORT names another port",
            )
        else:
            yield Finding(name, "ok", f"{host}:{port} is free")


def listeners(settings: Settings) -> Iterator[tuple[str, str, int]]:
    """(group, host, port) of everything that listens."""
    for group in type(settings).model_fields:
        host, port = (getattr(getattr(settings, group), name, None) for name in ("host", "port"))
        if isinstance(host, str) and isinstance(port, int):
            yield group, host, port


def _listen(host: str, port: int) -> None:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(address)
        tried.listen(1)


def files(effective: Effective) -> Iterator[Finding]:
    """Every file that a setting names can be read. The service writes none."""
    for group in type(effective.settings).model_fields:
        values = getattr(effective.settings, group)
        for name in type(values).model_fields:
            path = getattr(values, name)
            if not isinstance(path, Path):
                continue
            try:
                with path.open("rb") as stream:
                    stream.read(1)
            except OSError as error:
                yield Finding("files", "failed", f"{group}.{name}: {path}: {error.strerror}")
            else:
                yield Finding("files", "ok", f"{group}.{name}: {path} can be read")
    yield Finding("writable paths", "ok", "none is needed: nothing is written but the log, to stderr")


def store(effective: Effective) -> Iterator[Finding]:
    """Whether the shared store answers."""
    sessions = effective.settings.sessions
    url = sessions.store_url.get_secret_value()
    if not url:
        yield Finding("store", "note", f"sessions stay in this process, {sessions.capacity} at most")
        return
    if not sessions.keys:
        yield Finding(
            "store",
            "warning",
            "sessions are shared, but resume tokens are good in the process that made them only",
            "give all replicas the same REPPOSE_SESSIONS__TOKEN_KEYS",
        )
    began_s = time.perf_counter()
    try:
        asyncio.run(_ping(sessions.store_prefix, url, sessions.store_timeout_s))
    except ServiceError as error:
        yield Finding("store", "failed", str(error), "REPPOSE_SESSIONS__STORE_URL names it")
    else:
        yield Finding("store", "ok", f"answers in {1e3 * (time.perf_counter() - began_s):.1f} ms")


async def _ping(prefix: str, url: str, timeout_s: float) -> None:
    from service.streams.opening import open_store
    from service.streams.store import MemoryStore

    opened = open_store(url, capacity=1, idle_s=1, timeout_s=timeout_s, prefix=prefix)
    assert not isinstance(opened, MemoryStore)
    try:
        await opened.ping()
    finally:
        await opened.close()


def _size(count: float) -> str:
    """Bytes in words."""
    power = min(int(math.log(count, 1024)), 4) if count else 0
    return f"{count / 1024**power:.3g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


CHECKS: tuple[Check, ...] = (
    settings,
    versions,
    models,
    threads,
    memory,
    limits,
    ports,
    files,
    store,
    access.credentials,
    access.certificates,
)
