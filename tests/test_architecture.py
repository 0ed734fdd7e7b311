"""The rules of the house that a machine can check: who imports whom, how long files are, what the package holds."""

from __future__ import annotations

import ast
import graphlib
import re
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings tomli there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = [ROOT / "__init__.py", *sorted((ROOT / "nodes").rglob("*.py")), *sorted((ROOT / "svp_models").rglob("*.py"))]
HOST_MODULES = {
    "comfy",
    "comfy_api",
    "comfy_execution",
    "comfy_extras",
    "folder_paths",
    "node_helpers",
    "latent_preview",
}

# A package of svp_models may import those of a lower level, and itself.
LEVELS = (
    {"errors", "signals"},
    {"optional_deps"},
    {"io"},
    {"config", "types"},
    {"presets"},
    {"media", "face", "networks"},
    {"model"},
    {"checkpoints"},
    {"diffusion", "motion"},
    {"synthetic"},
    {"data"},
    {"evaluation"},
    {"training"},
    {"cli"},
)
MOST_FILES = 297  # besides __init__.py
# Public in spite of the name: documented, or argparse's type of a group, which has no other name.
PRIVATE_ALLOWED = {"_exit", "_handle", "_ArgumentGroup"}
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def imports(name: str) -> list[tuple[int, str | tuple[str, ...]]]:
    """(line, what a file imports): the parts of a path inside the project, or the name of a module outside it."""
    found: list[tuple[int, str | tuple[str, ...]]] = []
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.lineno, node.module or ""))
        elif isinstance(node, ast.ImportFrom):
            base = (*name.split("/")[: -node.level], *(node.module.split(".") if node.module else ()))
            found += [(node.lineno, (*base, alias.name)) for alias in node.names]  # the last part may be no file
    return found


def package_imports() -> list[tuple[str, str, str]]:
    """(where, importing package, imported package) for every import inside svp_models."""
    found = []
    for name in TREES:
        own = name.removesuffix(".py").split("/")
        for line, target in imports(name):
            if own[0] == "svp_models" and len(own) > 1 and target[0] == "svp_models" and own[1] != target[1]:
                found.append((f"{name}:{line}", own[1], target[1]))
    return found


def outside_imports() -> list[tuple[str, str]]:
    """(where, top-level name) for every import that is not relative."""
    return [
        (f"{name}:{line}", target.split(".")[0])
        for name in TREES
        for line, target in imports(name)
        if isinstance(target, str)
    ]


def test_imports_inside_the_package_are_relative():
    own = {"svp_portrait", "svp_models", "nodes"}
    assert [entry for entry in outside_imports() if entry[1] in own] == []


def test_only_the_host_file_imports_the_host():
    wrong = [
        entry for entry in outside_imports() if entry[1] in HOST_MODULES and not entry[0].startswith("nodes/host.py:")
    ]
    assert wrong == []


def test_torchvision_and_torchaudio_are_not_imported():
    assert [entry for entry in outside_imports() if entry[1] in ("torchvision", "torchaudio")] == []


def test_svp_models_knows_nothing_of_the_nodes():
    wrong = [
        f"{name}:{line}"
        for name in TREES
        for line, target in imports(name)
        if name.startswith("svp_models/") and isinstance(target, tuple) and target[0] != "svp_models"
    ]
    assert wrong == []


def test_imports_run_from_high_levels_to_low_ones():
    assert [entry for entry in package_imports() if LEVEL[entry[2]] > LEVEL[entry[1]]] == []


def test_peers_do_not_import_each_other_in_turn():
    pairs = {(own, other) for _, own, other in package_imports()}
    assert [pair for pair in pairs if pair[::-1] in pairs] == []


def file_of(parts: tuple[str, ...]) -> str | None:
    """The source file of a module or package, None if these parts of a path name none."""
    for name in ("/".join(parts) + ".py", "/".join([*parts, "__init__.py"])):
        if name in TREES:
            return name
    return None


def test_no_files_import_each_other_in_a_circle():
    """Imports in functions and under TYPE_CHECKING count too: a circle that is hidden is still one."""
    graph = {}
    for name in TREES:
        targets = [target for _, target in imports(name) if isinstance(target, tuple)]
        graph[name] = {file for target in targets if (file := file_of(target) or file_of(target[:-1]))} - {name}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


def test_there_are_few_files():
    assert sum(not name.endswith("__init__.py") for name in TREES) <= MOST_FILES


def private_uses(tree: ast.Module) -> list[tuple[int, str]]:
    """(line, expression) of every `_name` that the file takes from a module or an object and does not define itself."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    own |= {node.target.id for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and hasattr(node.target, "id")}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    at_home = {id(node) for node in attributes if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")}
    own |= {node.attr for node in attributes if id(node) in at_home}
    found = [(node.lineno, ast.unparse(node), node.attr) for node in attributes if id(node) not in at_home]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found += [(node.lineno, f"{node.module}.{alias.name}", alias.name) for alias in node.names]
    return [(line, text) for line, text, name in found if re.match("_[^_]", name) and name not in own | PRIVATE_ALLOWED]


def test_nothing_private_of_another_module_is_used():
    assert [f"{name}:{line} {text}" for name, tree in TREES.items() for line, text in private_uses(tree)] == []


def test_every_package_of_svp_models_has_a_level():
    names = {name.split("/")[1].removesuffix(".py") for name in TREES if name.startswith("svp_models/")}
    assert names - {"__init__"} <= set(LEVEL)


def test_files_are_short():
    lengths = {name: len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in TREES}
    assert {name: n for name, n in lengths.items() if n > 400} == {}


def test_packages_of_svp_models_begin_with_one_line():
    files = [name for name in TREES if name.startswith("svp_models/") and name.endswith("__init__.py")]
    assert [name for name in files if not (ast.get_docstring(TREES[name]) and len(TREES[name].body) == 1)] == []


def test_exceptions_are_caught_by_name():
    """No bare `except` and no `except Exception`; catching everything is for cleaning up and must raise again."""
    wrong = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                names = (
                    {part.id for part in ast.walk(node.type) if isinstance(part, ast.Name)}
                    if node.type
                    else {"Exception"}
                )
                again = any(isinstance(item, ast.Raise) for item in node.body)
                if names & {"Exception", "BaseException"} and not again:
                    wrong.append(f"{name}:{node.lineno}")
    assert wrong == []


def test_weights_load_strictly_and_safely():
    wrong = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given = {
                    keyword.arg: keyword.value.value
                    for keyword in node.keywords
                    if isinstance(keyword.value, ast.Constant)
                }
                lax = called.endswith("load_state_dict") and given.get("strict") is False
                if lax or (called == "torch.load" and given.get("weights_only") is not True):
                    wrong.append(f"{name}:{node.lineno}")
    assert wrong == []


def test_the_package_list_is_the_tree():
    packages = {".".join(("svp_portrait", *name.split("/")[:-1])) for name in TREES if name.endswith("__init__.py")}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages


def test_dependencies_have_lower_bounds_only():
    listed = [*PROJECT["project"]["dependencies"], *sum(PROJECT["project"]["optional-dependencies"].values(), [])]
    wanted = [item.partition(";")[0] for item in listed if not item.startswith("svp-portrait[")]  # without markers
    wanted = [
        item.removesuffix(",<5") if item.startswith("opencv") else item for item in wanted
    ]  # 5 has no face cascades
    assert [item for item in wanted if ">=" not in item or any(mark in item for mark in ("<", "==", "~", "!"))] == []
