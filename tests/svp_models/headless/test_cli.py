from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from svp_portrait.svp_models.headless.cli import main
from svp_portrait.svp_models.headless.schema import InputSpec, NodeSpec


def no_nodes(folders, progress):
    return []


@pytest.fixture
def graph(tmp_path):
    """Saves a picture again."""
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    path = tmp_path / "graph.json"
    path.write_text(
        json.dumps(
            {
                "1": {"class_type": "LoadImage", "inputs": {"image": "red.png"}},
                "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "again"}},
            }
        )
    )
    return path


def run(graph, *arguments, nodes=no_nodes):
    folder = str(graph.parent)
    return main(nodes, ["run", str(graph), "--input", folder, "--out", folder + "/out", *arguments])


def test_run_prints_the_saved_files(graph, capsys):
    assert run(graph, "--set", "SaveImage.filename_prefix=other") == 0
    printed = capsys.readouterr()
    saved = graph.parent / "out" / "other_00001_.png"
    assert printed.out == f"{saved}\n" and saved.is_file()
    assert "[2/2] node 2 (SaveImage)" in printed.err


def test_errors_are_one_line_and_exit_code_1(graph, capsys):
    assert run(graph, "--set", "LoadImage.image=blue.png") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("svp: the workflow cannot run (1 problem):") and "blue.png" in printed.err
    assert not (graph.parent / "out").exists()
    assert run(graph.parent / "missing.json") == 1
    assert main(no_nodes, ["run", str(graph), "--input", str(graph.parent / "nowhere")]) == 1


def test_debug_shows_the_traceback(graph):
    with pytest.raises(ValueError, match="cannot run"):
        main(no_nodes, ["--debug", "run", str(graph), "--input", "/", "--out", str(graph.parent / "out")])


def test_interruption_exits_with_130_and_leaves_no_file(graph, capsys):
    class Endless:
        @classmethod
        def define_schema(cls):
            return NodeSpec("Endless", (InputSpec("images", "IMAGE"),), ("IMAGE",))

    def nodes(folders, progress):
        def execute(images):
            progress(1, 100)
            raise KeyboardInterrupt

        return [SimpleNamespace(define_schema=Endless.define_schema, execute=execute)]

    content = json.loads(graph.read_text())
    content["3"] = {"class_type": "Endless", "inputs": {"images": ["1", 0]}}
    content["2"]["inputs"]["images"] = ["3", 0]
    graph.write_text(json.dumps(content))
    assert run(graph, nodes=nodes) == 130
    assert capsys.readouterr().err.endswith("svp: interrupted, nothing half-written was left\n")
    assert not list(graph.parent.glob("out/*"))


def test_usage_errors_and_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(no_nodes, [])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(no_nodes, ["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out.startswith("svp 0.")


def test_the_parser_does_not_wait_for_torch():
    code = "import sys; from svp_portrait.svp_models.headless import cli; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
