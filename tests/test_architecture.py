"""Who may import whom, read from the source, so that a file added tomorrow is held to it as well."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("model_zoo", "service", "trainer")

TRAINING = {
    "torch",
    "torchvision",
    "lightning",
    "onnx",
    "tensorboard",
    "faster_coco_eval",
    "pycocotools",
    "matplotlib",
}
TRANSPORT = {"fastapi", "starlette", "uvicorn", "grpc", "grpc_health", "grpc_reflection", "prometheus_client"}
NEVER = {
    "model_zoo": {"service", "trainer", "onnxruntime"} | TRAINING | TRANSPORT,
    "service": {"trainer"} | TRAINING,
    "trainer": {"service"} | TRANSPORT,
}
"""Top-level names that no module of a package imports, at its head or inside a function."""

ONLY_IN = {
    "onnxruntime": {"service.runner", "trainer.export", "trainer.quantise"},
    "typer": {
        "model_zoo.cli",
        "service.cli",
        "service.commands",
        "service.client.cli",
        "trainer.cli",
        "trainer.zoo",
    },
    "service.settings": {
        "service.commands",
        "service.core",
        "service.doctor",
        "service.opening",
        "service.server",
    },
}
"""Modules and packages that a few alone may import. The composition root is handed settings; all below it take plain
values."""

MODEL_ZOO_STANDS_ON = {"numpy", "cv2", "pydantic", "typer"}

LAYERS = (
    {"cli", "__main__"},
    {"commands"},
    {"server", "opening", "doctor"},
    {"rest", "rpc"},
    {"streams"},
    {"core", "predictor", "stages", "looks"},
    {"registry", "batcher", "images", "decoding", "render", "pipeline"},
    {"runner"},
    {"types", "errors"},
)
"""The parts of service from the command line down; each may use its own layer and those after it. A part that is not
named here, such as logs or metrics, serves all of them."""


def module_name(path: Path) -> str:
    """Dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[str, Path]:
    """Every module of ours by name, but for generated code."""
    paths = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {module_name(path): path for path in paths if "pb" not in path.relative_to(ROOT).parts}


def nodes(tree: ast.AST, *, for_types: bool) -> Iterator[ast.AST]:
    """Every node, inside functions too; without `for_types`, those under `if TYPE_CHECKING` are left out."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if for_types or not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from nodes(child, for_types=for_types)


def imported_names(text: str, module: str, *, is_package: bool, for_types: bool = True) -> Iterator[str]:
    """Absolute dotted names in all import statements; `for_types` as in `nodes`."""
    for node in nodes(ast.parse(text), for_types=for_types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")
                above = above[: len(above) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


@cache
def imports(module: str, *, for_types: bool = True) -> frozenset[str]:
    """What one module of ours imports: modules of ours by full name, others by top-level name."""
    path = sources()[module]
    found = set()
    is_package = path.name == "__init__.py"
    for name in imported_names(path.read_text(), module, is_package=is_package, for_types=for_types):
        top, _, _ = name.partition(".")
        if top not in PACKAGES:
            found.add(top)
            continue
        while name not in sources() and "." in name and not name.startswith("service.pb"):
            name = name.rpartition(".")[0]
        found.add(name)
    return frozenset(found - sys.stdlib_module_names - {module})


def of(package: str) -> list[str]:
    """Modules of one package or part of one."""
    return [name for name in sources() if name == package or name.startswith(f"{package}.")]


def layer(module: str) -> int | None:
    """Index of a service module's layer, or None where it serves all."""
    part = module.removeprefix("service.").partition(".")[0]
    return next((index for index, parts in enumerate(LAYERS) if part in parts), None)


def offences(package: str, forbidden: set[str]) -> list[str]:
    """`module -> name` for every import of a forbidden top-level name."""
    return [
        f"{module} -> {name}"
        for module in of(package)
        for name in imports(module)
        if name.partition(".")[0] in forbidden
    ]


def test_the_reader_sees_every_form_of_import():
    text = """
import a.b, c as d
from e.f import g
from . import h
from .i import j
from ..k import l
if TYPE_CHECKING:
    import m
def late():
    try:
        from n import o
    except ImportError:
        import p
"""
    inside = {"a.b", "c", "e.f.g", "x.y.h", "x.y.i.j", "x.k.l", "m", "n.o", "p"}
    assert set(imported_names(text, "x.y.z", is_package=False)) == inside
    assert {"x.y.z.h", "x.y.k.l"} < set(imported_names(text, "x.y.z", is_package=True))
    assert set(imported_names(text, "x.y.z", is_package=False, for_types=False)) == inside - {"m"}


def test_there_is_something_to_read():
    assert all(of(package) for package in PACKAGES)
    assert {"numpy", "model_zoo.codecs._maps", "model_zoo.manifest"} <= imports("model_zoo.codecs.dark")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_keeps_to_what_it_may_use(package):
    assert offences(package, NEVER[package]) == []


def test_model_zoo_stands_on_little():
    used = {name for module in of("model_zoo") for name in imports(module)}
    assert {name.partition(".")[0] for name in used} - {"model_zoo"} <= MODEL_ZOO_STANDS_ON


@pytest.mark.parametrize("name", ONLY_IN)
def test_some_imports_have_one_place(name):
    allowed = tuple(f"{each}." for each in (name, *ONLY_IN[name]))
    users = {m for m in sources() if any(f"{each}.".startswith(f"{name}.") for each in imports(m))}
    assert {module for module in users if not f"{module}.".startswith(allowed)} == set()


@pytest.mark.parametrize("package", ["service", "model_zoo"])
def test_torch_cannot_be_reached(package):
    reached, waiting = set(), set(of(package))
    while waiting:
        module = waiting.pop()
        reached.add(module)
        waiting |= {name for name in imports(module) if name in sources()} - reached
    assert not {name for module in reached for name in imports(module)} & TRAINING
    assert not {module for module in reached if module.partition(".")[0] == "trainer"}


@pytest.mark.parametrize(("one", "other"), [("service.rest", "service.rpc"), ("service.rpc", "service.rest")])
def test_the_two_transports_never_meet(one, other):
    met = [f"{module} -> {name}" for module in of(one) for name in imports(module) if name.startswith(other)]
    assert met == []


def test_the_client_knows_nothing_of_the_server():
    used = {name for module in of("service.client") for name in imports(module)}
    ours = {name for name in used if not name.startswith(("service.client", "service.pb"))}
    assert ours <= {"service.render", "service.types", "model_zoo.skeletons", "grpc", "numpy", "cv2", "typer"}


def test_service_imports_run_one_way():
    upwards = [
        f"{module} -> {name}"
        for module in of("service")
        for name in imports(module)
        if name.startswith("service.")
        and layer(module) is not None
        and layer(name) is not None
        and layer(name) < layer(module)
    ]
    assert upwards == []


def test_below_the_transports_nobody_knows_them():
    edge = layer("service.predictor")
    below = [module for module in of("service") if layer(module) is not None and layer(module) >= edge]
    known = [
        f"{m} -> {name}" for m in below for name in imports(m) if name in TRANSPORT - {"prometheus_client"}
    ]
    assert known == []


def test_imports_go_round_in_no_circle():
    graph = {m: {name for name in imports(m, for_types=False) if name in sources()} for m in sources()}
    for package in [module for module, path in sources().items() if path.name == "__init__.py"]:
        graph[package] = {name for name in graph[package] if not name.startswith(f"{package}.")}
    TopologicalSorter(graph).prepare()  # raises CycleError with the modules of the circle


def test_only_the_command_line_reads_the_environment():
    readers = {
        module
        for module in of("service")
        for node in ast.walk(ast.parse(sources()[module].read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"os.getenv", "os.environ.get", "read"}
        and "environ" in ast.unparse(node)
    }
    readers.discard("service.client.cli")  # a program of its own
    assert readers <= {"service.commands.common", "service.commands.doctor"}


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_pulls_in_nothing_heavy(package):
    heavy = ["cv2", "numpy", "torch", "lightning", "onnx", "onnxruntime", "fastapi", "grpc", "pydantic"]
    code = f"import sys, {package}; print(*[name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert loaded.stdout.split() == []


@pytest.mark.parametrize("package", ["service", "model_zoo"])
def test_what_serves_runs_without_torch(package):
    modules = [module for module in of(package) if not module.endswith("__main__")]
    code = f"""
import importlib, sys
sys.modules.update(dict.fromkeys({sorted(TRAINING | {"trainer"})}))  # None: an import of it fails
for module in {modules}:
    importlib.import_module(module)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)
