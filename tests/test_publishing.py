"""The registry's rules, and what a host has to bear when it starts: nothing runs from text, nothing goes out, little is imported."""

from __future__ import annotations

import ast
import fnmatch
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from svp_portrait.nodes.registry import NODE_CLASSES
from svp_portrait.svp_models.cli.graph import GraphNode, check_graph
from svp_portrait.svp_models.cli.runner import build_registry

from .looping import for_all

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest brings tomli there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SOURCES = [ROOT / "__init__.py", *sorted((ROOT / "nodes").rglob("*.py")), *sorted((ROOT / "svp_models").rglob("*.py"))]
TREES = {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
FROM_TEXT = {"eval", "exec", "compile", "__import__"}
OTHER_PROGRAMS = {"subprocess", "pip", "ensurepip", "setuptools", "pty"}
HIDING = {"base64", "marshal", "codecs"}
UNPACKING = {"zlib.decompress", "pickle.load", "pickle.loads", "pickle.Unpickler"}
NETWORK = {"socket", "urllib", "http", "requests", "httpx", "aiohttp", "huggingface_hub", "ftplib", "websockets"}
DOWNLOADS = "svp_models/checkpoints/hub.py"  # `svp download`, and nothing that a graph runs
# Take seconds to import, or belong to one use of the pack: none is imported before something needs it.
LATE = {
    "accelerate", "av", "cv2", "kornia", "librosa", "onnxruntime", "scipy", "soxr", "sympy", "deepspeed", "diffusers", "espeakng_loader", "huggingface_hub", "insightface", "matplotlib", "mediapipe",
    "numba", "onnx", "onnxscript", "pandas", "ray", "requests", "sklearn", "soundfile", "tensorboard", "torchvision",
    "transformers", "webdataset",
}  # fmt: skip
DUMP = ROOT / "tests" / "host" / "dump_schemas.py"
START = """
import asyncio, json, os, socket, sys, threading
def refuse(*arguments, **more):
    raise RuntimeError("the network is out of bounds")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
def process():
    return dict(os.environ), os.getcwd(), list(sys.path)
before = process()
import svp_portrait
nodes = asyncio.run(asyncio.run(svp_portrait.comfy_entrypoint()).get_node_list())
schemas = [node.define_schema() for node in nodes]
assert process() == before, "the process is not as it was"
assert threading.active_count() == 1, threading.enumerate()
print(json.dumps([len(schemas), sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def calls(tree: ast.AST) -> set[str]:
    """Functions that are called by their bare name, and methods of `os` as `os.name`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            found.add(f"{node.func.value.id}.{node.func.attr}")
    return found


def imported(tree: ast.AST) -> set[str]:
    """Top-level names of what is imported from outside, wherever in the file."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def test_only_install_py_calls_pip():
    """It runs before the host does; nothing of the pack imports it."""
    tree = ast.parse((ROOT / "install.py").read_text(encoding="utf-8"))
    assert imported(tree) == {"__future__", "subprocess", "sys", "importlib"} and not calls(tree) & FROM_TEXT
    assert not [name for name, path in TREES.items() if "install" in imported(path)]


@for_all(lambda: {name: name for name in TREES})
def test_the_registrys_security_rules(name):
    called, outside = calls(TREES[name]), imported(TREES[name])
    assert not called & FROM_TEXT, "code from text"
    assert (
        not called & {"os.system", "os.popen", "os.execv", "os.spawnv", "os.startfile"} and not outside & OTHER_PROGRAMS
    )
    assert not outside & HIDING and not called & UNPACKING, "code could hide in there"
    assert not outside & NETWORK or name == DOWNLOADS


def test_downloads_belong_to_the_command_line():
    """No node can reach what goes to the network."""
    users = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level and (node.module or "").endswith("checkpoints.hub")
    }
    assert users and all(item.startswith("svp_models/cli/") for item in users)


def test_a_start_imports_little_and_touches_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", START], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    count, modules = json.loads(done.stdout)
    assert count == len(NODE_CLASSES) and "svp_portrait" in modules
    assert LATE.isdisjoint(modules), LATE & set(modules)
    assert list(tmp_path.iterdir()) == []


NATIVE = ("/cv2", "opencv", "onnxruntime", "/av/", "av.libs", "/scipy/", "/soxr/", "numba", "llvmlite")
# The face analyser, the first thing for which a native library is opened that would talk to a server by itself
ANALYSE = """
import numpy as np
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.face.detectors.built_in import FaceAnalyzer
FaceAnalyzer(load_model(BUILTIN_MODEL).face_analyzer).analyze(np.zeros((1, 64, 64, 3), np.uint8))
import time
time.sleep(2)
"""


def traced(code: str, home: Path) -> list[str]:
    """The system calls of a Python process that concern the network and files, as strace writes them."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    record, variables = home / "calls.txt", {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    variables.pop("ORT_DISABLE_TELEMETRY", None)
    command = [
        "strace",
        "-f",
        "-qq",
        "-s",
        "300",
        "-e",
        "trace=network,%file",
        "-o",
        str(record),
        sys.executable,
        "-c",
        code,
    ]
    done = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=250)
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr[-2000:]
    return record.read_text(errors="replace").splitlines()


def went_out(calls: list[str]) -> list[str]:
    return [text for text in calls if "AF_INET" in text or re.search(r"\b(connect|sendto|sendmsg|sendmmsg)\(", text)]


def wrote(calls: list[str]) -> list[str]:
    """Calls that make, change or remove something; a library may try whether the folder for temporary files can be written."""
    change = re.compile(r"\b(mkdir|rename|unlink|link|symlink|chmod|truncate)\w*\(|O_(WRONLY|RDWR|CREAT)")
    allowed = re.compile(rf'"/dev/|"{re.escape(tempfile.gettempdir())}/[a-z0-9_]{{8}}"|"/tmp/torchinductor_')
    return [text for text in calls if change.search(text) and " = -1 " not in text and not allowed.search(text)]


def test_below_python_a_start_opens_no_native_library_and_nothing_goes_out(tmp_path):
    calls = traced("import asyncio, svp_portrait\nasyncio.run(svp_portrait.comfy_entrypoint())", tmp_path)
    assert any("openat" in text and "registry" in text for text in calls), "the nodes were read"
    assert went_out(calls) == [] and wrote(calls) == []
    opened = [text for text in calls if re.search(r"openat\(.*\.so[\w.]*\"", text) and " = -1 " not in text]
    assert opened and not [text for text in opened if any(name in text for name in NATIVE)]


def test_below_python_the_face_analyser_is_silent_too(tmp_path):
    """onnxruntime looks up a server and writes an identity into the home folder unless it is told not to."""
    calls = traced(ANALYSE, tmp_path)
    assert any("onnxruntime" in text for text in calls)
    assert went_out(calls) == [] and wrote(calls) == []
    assert [path.name for path in tmp_path.iterdir()] == ["calls.txt"]


def test_what_the_registry_is_told():
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    name = project["name"]
    assert re.fullmatch(r"[a-z][a-z0-9]*([-_.][a-z0-9]+)*", name) and len(name) < 100 and "comfy" not in name
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["description"] and project["readme"] == "README.md" and project["requires-python"]
    assert "Operating System :: OS Independent" in project["classifiers"]
    assert comfy["PublisherId"] and comfy["DisplayName"] and re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    assert not any("==" in item or "<" in item for item in project["dependencies"]), "the host's versions are its own"


def test_icon_and_banner():
    with Image.open(ROOT / place("Icon")) as icon, Image.open(ROOT / place("Banner")) as banner:
        assert icon.width == icon.height <= 400
        assert banner.width * 9 == banner.height * 21


def place(key: str) -> str:
    """The file in this repository, whether it is named by its path or by an address that ends with it."""
    return re.search(r"docs/images/[\w.-]+$", PROJECT["tool"]["comfy"][key])[0]


def test_the_changelog_knows_this_version():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased" and PROJECT["project"]["version"] in headings


def test_the_archive_is_small_and_whole():
    """What the registry gets: what git knows, without what .comfyignore names."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    lines = [
        text for text in (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines() if text and text[0] != "#"
    ]
    files = [text for text in listed.stdout.split("\0") if text and (ROOT / text).is_file()]
    kept = [file for file in files if not any(ignores(line, file) for line in lines)]
    assert {
        "__init__.py",
        "pyproject.toml",
        "requirements.txt",
        "install.py",
        "README.md",
        "LICENSE",
        "svp_models/checkpoints/weights/demo.safetensors",
        "svp_models/checkpoints/weights/emotion_bank.safetensors",
        "svp_models/checkpoints/weights/face_analyzer.onnx",
        "svp_models/checkpoints/weights/face_reader.onnx",
        "svp_models/checkpoints/weights/motion.safetensors",
        "svp_models/checkpoints/weights/portrait.safetensors",
        "svp_models/checkpoints/weights/portrait_reader.safetensors",
        "svp_models/checkpoints/weights/score_reader.safetensors",
    } <= set(kept)
    assert not [path for path in kept if path.startswith(("tests/", ".github/"))]
    sizes = {path: (ROOT / path).stat().st_size for path in kept if not path.endswith(".safetensors")}
    assert sum(sizes.values()) < 20e6 and max(sizes.values()) < 4e6, max(sizes, key=sizes.get)


def ignores(line: str, name: str) -> bool:
    """Of .gitignore's patterns, those in use: `folder/`, and names from the root."""
    return name.startswith(line) if line.endswith("/") else fnmatch.fnmatch(name, line)


@pytest.fixture(scope="module")
def guide() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def example(guide) -> str:
    """The node of the guide."""
    (code,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    return "\n".join(line.removeprefix("   ") for line in code.splitlines()) + "\n"


def test_the_guides_node_works(example, tmp_path):
    file = tmp_path / "mirror.py"
    file.write_text(example)
    place = importlib.util.spec_from_file_location("svp_portrait.nodes.mirror_of_the_guide", file)
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    picture = torch.rand(1, 4, 6, 3)
    assert torch.equal(module.SVPMirror.execute(picture).args[0], picture.flip(2))
    registry = build_registry([*NODE_CLASSES, module.SVPMirror])
    graph = {"1": GraphNode("1", "SVPMirror")}
    (problem,) = check_graph(graph, registry.specs, registry.nodes)
    assert "required input 'images' (IMAGE) is missing" in problem


def test_the_guides_steps_add_a_node(example, tmp_path):
    """A copy of the pack, with the steps of the guide done to it, lists the node and freezes it."""
    pack = tmp_path / "pack"
    ignored = shutil.ignore_patterns("*.safetensors", "__pycache__")
    for folder in ("nodes", "svp_models"):
        shutil.copytree(ROOT / folder, pack / folder, ignore=ignored)
    shutil.copy(ROOT / "__init__.py", pack)
    (pack / "nodes" / "mirror.py").write_text(example)
    registry = pack / "nodes" / "registry.py"
    text = registry.read_text().replace("from .loaders import", "from .mirror import SVPMirror\nfrom .loaders import")
    registry.write_text(re.sub(r"(NODE_CLASSES.*?)\n\]", r"\1\n    SVPMirror,\n]", text, flags=re.DOTALL))
    done = subprocess.run(
        [sys.executable, str(DUMP), str(pack)], cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    nodes: list[dict[str, Any]] = json.loads(done.stdout)["nodes"]
    assert [node["node_id"] for node in nodes] == [*(node.__name__ for node in NODE_CLASSES), "SVPMirror"]


@for_all(lambda: {name: name for name in ("bug.yml", "feature.yml")})
def test_issue_templates_are_forms(name):
    yaml = pytest.importorskip("yaml")
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    ids = [item["id"] for item in form["body"] if item["type"] != "markdown"]
    assert len(ids) == len(set(ids)) and all(item["attributes"].get("label") for item in form["body"] if "id" in item)
    if name == "bug.yml":
        assert {"workflow", "log", "host", "pack"} <= set(ids)
