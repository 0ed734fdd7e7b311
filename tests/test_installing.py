"""What installing does: requirements.txt against pyproject.toml, install.py's choices, one line when a package is missing."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import svp_portrait
from svp_portrait.svp_models import optional_deps
from svp_portrait.svp_models.cli.main import COMMANDS, main
from svp_portrait.svp_models.errors import PortraitError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
FAMILIES = ("opencv", "onnxruntime")  # of each, one distribution per environment
# A pip that writes down what it is asked for and returns what PIP_CODE says
FAKE_PIP = """
import os, pathlib, sys
pathlib.Path(os.environ["PIP_LOG"]).write_text("\\n".join(sys.argv[1:]))
sys.exit(int(os.environ["PIP_CODE"]))
"""


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w.-]+", item)[0] for item in requirements}


def load_install():
    place = importlib.util.spec_from_file_location("install_of_the_pack", ROOT / "install.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def test_requirements_are_those_of_the_project():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [item for item in lines if item and item[0] != "#"] == PROJECT["dependencies"]


def test_no_requirement_replaces_what_a_host_has():
    assert not [item for item in PROJECT["dependencies"] if item.startswith(FAMILIES)]
    assert {re.match(r"[a-z]+", item)[0] for item in EXTRAS["standalone"]} == set(FAMILIES)


def test_one_table_of_packages():
    """What the start looks for is what the project requires, what install.py brings is the extra `standalone`."""
    assert set(optional_deps.REQUIRED.values()) == names(PROJECT["dependencies"])
    install = load_install()
    assert list(install.BRINGS.values()) == EXTRAS["standalone"]
    assert {module: re.match(r"[\w.-]+", item)[0] for module, item in install.BRINGS.items()} == optional_deps.ANY_OF


@pytest.fixture
def environment(tmp_path):
    """A Python with nothing but a pip that writes down what it is asked for: (run install.py, what pip was asked for).

    The run takes the modules that are there."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    modules, log = tmp_path / "modules", tmp_path / "asked"
    (modules / "pip").mkdir(parents=True)
    (modules / "pip" / "__main__.py").write_text(FAKE_PIP)

    def run(*there: str, code: int = 0) -> tuple[subprocess.CompletedProcess, list[str]]:
        for item in there:
            (modules / f"{item}.py").write_text("raise SystemExit('imported')")
        variables = {**os.environ, "PYTHONPATH": str(modules), "PIP_LOG": str(log), "PIP_CODE": str(code)}
        command = [str(python), str(ROOT / "install.py")]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
        return done, log.read_text().splitlines() if log.exists() else []

    return run


def test_what_can_be_imported_is_left_alone(environment):
    done, asked = environment("cv2", "onnxruntime")
    assert done.returncode == 0 and asked == []
    assert done.stdout.strip() == "SVP Portrait: OpenCV and onnxruntime are there, nothing was installed"


@pytest.mark.parametrize("there, brought", [("cv2", "onnxruntime"), ("onnxruntime", "opencv-python-headless")])
def test_only_what_is_missing_is_brought(environment, there, brought):
    done, asked = environment(there)
    (requirement,) = [item for item in EXTRAS["standalone"] if item.startswith(brought)]
    assert done.returncode == 0 and asked == ["install", requirement]
    assert done.stdout.strip() == f"SVP Portrait: installed {requirement}"


def test_a_failed_installation_is_told(environment):
    done, asked = environment(code=3)
    assert done.returncode == 3 and asked == ["install", *EXTRAS["standalone"]]
    assert done.stdout.strip() == f"SVP Portrait: could not install {', '.join(EXTRAS['standalone'])}"


def test_importing_it_does_nothing(capsys):
    load_install()
    assert capsys.readouterr().out == ""


@pytest.fixture
def missing(monkeypatch):
    """Takes packages away: find_spec does not see them."""

    def take(*gone: str) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr(optional_deps, "find_spec", lambda name: None if name in gone else find(name))
        for item in gone:
            monkeypatch.delitem(sys.modules, item, raising=False)

    return take


@pytest.mark.parametrize(
    "gone, named",
    [
        (["cv2"], "opencv-python-headless"),
        (["onnxruntime"], "onnxruntime"),
        (["av", "soxr", "PIL"], "pillow, av, soxr"),
    ],
)
def test_the_host_is_told_what_to_run(missing, gone, named):
    missing(*gone)
    with pytest.raises(PortraitError) as raised:
        asyncio.run(svp_portrait.comfy_entrypoint())
    text = str(raised.value)
    assert f"not installed: {named}. Run " in text and "\n" not in text
    assert f'"{sys.executable}" -m pip install -r "{optional_deps.ROOT / "requirements.txt"}"' in text
    assert text.endswith(f'and then "{sys.executable}" "{optional_deps.ROOT / "install.py"}"')


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_too(missing, capsys, command):
    missing("diffusers")
    assert main(lambda *_: pytest.fail("nodes were opened"), [command]) == 1
    assert capsys.readouterr().err.startswith(
        "svp: SVP Portrait needs packages that are not installed: diffusers. Run "
    )


def test_a_package_that_a_package_needs(monkeypatch, capsys):
    def broken(name: str, package: str):
        raise ModuleNotFoundError("No module named 'sympy'", name="sympy")

    monkeypatch.setattr("svp_portrait.svp_models.cli.main.importlib.import_module", broken)
    assert main(lambda *_: None, ["models"]) == 1
    assert "not installed: sympy. Run " in capsys.readouterr().err


def test_a_pack_without_its_clone_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setattr(optional_deps, "ROOT", tmp_path)
    assert str(optional_deps.missing_error(["av"])).endswith('-m pip install "svp-portrait[standalone]"')


CHECK = """
import json, cv2, onnxruntime
from importlib.metadata import distributions
print(json.dumps([cv2.__version__, onnxruntime.get_available_providers(), sorted(
    f"{each.metadata['Name']} {each.version}" for each in distributions()
    if each.metadata["Name"].lower().replace("_", "-").startswith(("opencv", "onnxruntime")))]))
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_hosts_own_opencv_and_onnxruntime_stay(tmp_path):
    """With onnxruntime-gpu and opencv-python 4 there, all ways of installing the pack leave both as they are."""
    folder = tmp_path / "env"
    venv.create(folder, with_pip=True)
    python = str(folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python"))

    def pip(*arguments: str) -> subprocess.CompletedProcess:
        command = [python, "-m", "pip", "install", "-q", "--no-compile", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)

    def state() -> str:
        done = subprocess.run([python, "-c", CHECK], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    there = pip("opencv-python==4.10.*", "onnxruntime-gpu", "numpy")
    if there.returncode:
        pytest.skip(f"no package index: {there.stderr[-200:]}")
    before = state()
    assert '"opencv-python 4.10' in before and '"onnxruntime-gpu' in before and "CUDAExecutionProvider" in before
    for arguments in (("-r", "requirements.txt"), ("-e", ".")):
        done = pip(*arguments)
        assert done.returncode == 0, done.stderr[-2000:]
        done = subprocess.run([python, str(ROOT / "install.py")], capture_output=True, text=True)
        assert done.returncode == 0 and "nothing was installed" in done.stdout
        assert state() == before
