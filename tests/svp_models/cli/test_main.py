from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.cli.schema import InputSpec, NodeSpec


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


OUTPUTS = {
    "a file": ("SaveImage.filename_prefix=x", "file"),
    "a folder that cannot be made": ("SaveImage.filename_prefix=x", "/proc/x"),
    "an empty prefix": ("SaveImage.filename_prefix=", "out"),
    "a long prefix": (f"SaveImage.filename_prefix={'x' * 260}", "out"),
    "a folder outside": ("SaveImage.filename_prefix=../../x", "out"),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_where_files_go_is_checked_before_anything_runs(graph, capsys, case):
    assignment, out = OUTPUTS[case]
    (graph.parent / "file").touch()
    before = sorted(graph.parent.rglob("*"))
    assert run(graph, "--set", assignment, "--out", str(graph.parent / out)) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("svp: the workflow cannot run (1 problem):\n  - node 2 (SaveImage): ")
    assert len(printed.splitlines()) == 2 and "[1/2]" not in printed
    assert sorted(graph.parent.rglob("*")) == before


def test_titles_do_nothing_to_the_terminal(graph, capsys):
    content = json.loads(graph.read_text())
    content["1"]["_meta"] = {"title": "red\x1b[2J\x07\nsvp: done"}
    content["2\x1b[31m"] = content.pop("2")
    graph.write_text(json.dumps(content))
    assert run(graph) == 0
    assert run(graph, "--set", "LoadImage.image=blue\x1b[2J.png") == 1
    printed = capsys.readouterr().err
    assert "\x1b" not in printed and "\x07" not in printed and "red\\x1b[2J\\x07\\nsvp: done" in printed


SAVE = '{"2": {"class_type": "LoadImage", "inputs": {"image": "red.png"}}, "1": {"class_type": "SaveImage", "inputs": '
SAVE += '{"images": ["2", 0], "filename_prefix": "PREFIX"}}}'
GRAPHS = {
    "a number as a file": ('{"1": {"class_type": "LoadImage", "inputs": {"image": 5}}}', "no image file '5'"),
    "400 digits": (f'{{"1": {{"class_type": "ImageScale", "inputs": {{"width": {"9" * 400}}}}}}}', "needs a value of type INT"),
    "5000 digits": (f'{{"1": {{"class_type": "ImageScale", "inputs": {{"width": {"9" * 5000}}}}}}}', "not a JSON file"),
    "an endless number": ('{"1": {"class_type": "CreateVideo", "inputs": {"fps": 1e999}}}', "needs a value of type FLOAT"),
    "very deep": ("[" * 100_000 + "]" * 100_000, "not a JSON file"),
    "deep": (f'{{"1": {{"class_type": "X", "inputs": {{"a": {"[" * 200 + "]" * 200}}}}}}}', "nested deeper than 50"),
    "a NUL": (SAVE.replace("PREFIX", "a\\u0000b"), "holds the character"),
    "half a letter": (SAVE.replace("PREFIX", "\\ud800"), "holds the character"),
    "a NUL in a file": ('{"1": {"class_type": "LoadImage", "inputs": {"image": "a\\u0000b"}}}', "no image file"),
    "a long file": (f'{{"1": {{"class_type": "LoadImage", "inputs": {{"image": "{"x" * 5000}"}}}}}}', "no image file"),
    "bytes": (b"\xff\xfe\x00", "not a JSON file"),
    "a far output": (f'{{"1": {{"class_type": "SaveImage", "inputs": {{"images": ["1", {"9" * 400}]}}}}}}', "is linked to output"),
}  # fmt: skip


@pytest.mark.parametrize("case", GRAPHS)
def test_strange_graphs_are_told_in_lines(graph, capsys, case):
    content, expected = GRAPHS[case]
    graph.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(graph) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("svp: ") and expected in printed and len(printed) < 2000
    assert not (graph.parent / "out").exists()


def test_a_saved_file_runs_again(graph, capsys):
    assert run(graph) == 0
    saved = graph.parent / "out" / "again_00001_.png"
    with Image.open(saved) as picture:
        stored = json.loads(picture.text["prompt"])
    assert {key: node["inputs"] for key, node in stored.items()} == {
        key: node["inputs"] for key, node in json.loads(graph.read_text()).items()
    }
    moved = saved.rename(graph.parent / "moved.png")
    assert run_file(moved, graph.parent) == 0
    assert saved.is_file() and saved.read_bytes() == moved.read_bytes()
    assert run_file(graph.parent / "red.png", graph.parent) == 1
    assert "red.png: no workflow is stored in it" in capsys.readouterr().err


def run_file(path, folder):
    return main(no_nodes, ["run", str(path), "--input", str(folder), "--out", str(folder / "out")])


def test_a_node_that_fails_is_named_in_one_line(graph, capsys):
    def nodes(folders, progress):
        def execute(images):
            raise RuntimeError("out of memory\nat frame 3")

        spec = NodeSpec("Fails", (InputSpec("images", "IMAGE"),), is_output_node=True)
        return [SimpleNamespace(define_schema=lambda: spec, execute=execute)]

    content = json.loads(graph.read_text())
    content["3"] = {"class_type": "Fails", "inputs": {"images": ["1", 0]}}
    graph.write_text(json.dumps(content))
    assert run(graph, nodes=nodes) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "svp: node 3 (Fails): RuntimeError: out of memory (svp --debug shows where)"


def test_a_missing_package_is_named_with_its_cure(graph, capsys):
    def nodes(folders, progress):
        raise ModuleNotFoundError("No module named 'einops'", name="einops")

    assert run(graph, nodes=nodes) == 1
    printed = capsys.readouterr().err
    assert (
        printed.startswith("svp: SVP Portrait needs packages that are not installed: einops. ")
        and "-m pip install" in printed
    )


def test_usage_errors_and_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(no_nodes, [])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(no_nodes, ["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out.startswith("svp 0.")


def test_the_parser_does_not_wait_for_torch():
    code = "import sys; from svp_portrait.svp_models.cli import main; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
