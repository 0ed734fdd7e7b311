"""README, docs/ and the other pages of the repository: what they name exists, and every command they show can be typed."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from argparse import ArgumentParser
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import pytest

from svp_portrait.nodes.registry import NODE_CLASSES
from svp_portrait.svp_models.checkpoints.model_zoo import ENTRIES
from svp_portrait.svp_models.cli.main import COMMANDS
from svp_portrait.svp_models.training.config import PHASES
from svp_portrait.svp_models.training.face_config import load_face_recipe
from svp_portrait.svp_models.training.portrait_reader_run import load_reading_recipe
from svp_portrait.svp_models.training.recipe import ALIASES, load_recipe

from .nodes.test_help import messages
from .test_architecture import LEVELS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
README = TEXTS["README.md"]
OF_THE_GUIDE = {"nodes/mirror.py", "web/docs/SVPMirror.md"}  # the reader writes these
FOLDERS = r"(?:nodes|svp_models|tests|docs|web|locales|workflows|recipes|subgraphs|\.github)"
PACKAGE = ROOT / "svp_models"


def without_code(text: str) -> str:
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(text: str) -> str:
    """The lines of all code blocks."""
    return "".join(re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL))


def commands_in(lines: list[str]) -> list[list[str]]:
    """The words of every `svp ...` command."""
    lines = [line.strip() for line in lines]
    return [shlex.split(line, comments=True) for line in lines if re.match(r"(\.venv/bin/)?svp ", line)]


def shown_commands(text: str) -> list[list[str]]:
    """Those in the code blocks of a page, which are whole."""
    return commands_in(blocks(text).replace("\\\n", " ").splitlines())


def commands(text: str) -> list[list[str]]:
    """Those in its code blocks and in its sentences."""
    return shown_commands(text) + commands_in(re.findall(r"`([^`\n]+)`", without_code(text)))


def command_parser(name: str) -> ArgumentParser:
    parser = ArgumentParser(prog=f"svp {name}")
    module = importlib.import_module(f"svp_portrait.svp_models.cli.{COMMANDS[name][0]}")
    getattr(module, f"add_{name.replace('-', '_')}_arguments")(parser)
    return parser


def help_of(name: str, *subject: str) -> str:
    """What `svp NAME [SUBJECT] --help` prints; of `evaluate`, what `svp evaluate demo --help` prints."""
    arguments = ["demo", "--help"] if name == "evaluate" else [*subject, "--help"]
    with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
        command_parser(name).parse_args(arguments)
    return printed.getvalue()


def options(name: str, *subject: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", help_of(name, *subject)))


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_links_lead_somewhere():
    for name, text in TEXTS.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text)):
            if target.startswith(("https://", "http://")):
                continue
            path, _, anchor = target.partition("#")
            page = (ROOT / name).parent / path if path else ROOT / name
            assert page.exists(), f"{name}: {target}"
            assert not anchor or anchor in anchors(page.read_text(encoding="utf-8")), f"{name}: {target}"


def test_every_page_is_linked_from_the_readme():
    linked = set(re.findall(r"\]\(([\w./]+\.md)\)", README))
    assert set(TEXTS) - {"README.md"} <= linked


def test_paths_exist():
    for name, text in TEXTS.items():
        if name == "CHANGELOG.md":
            continue  # names what was removed, too
        named = re.findall(rf"`({FOLDERS}/[\w./-]*)`", text) + re.findall(rf"python ({FOLDERS}/[\w./-]+\.py)", text)
        for path in set(named) - OF_THE_GUIDE:
            if not re.search(r"NAME|LANGUAGE|NODE", path):
                assert (ROOT / path).exists(), f"{name}: {path}"
        for path in re.findall(r"\b((?:recipes|workflows)/[\w./]+\.(?:toml|json))", text):
            assert "NAME" in path or (ROOT / path).exists(), f"{name}: {path}"


def test_commands_and_their_options_exist():
    found = 0
    for name, text in TEXTS.items():
        for words in commands(text):
            given = [word for word in words[1:] if not word.startswith("--debug")]
            if given[0] == "COMMAND":
                continue
            assert given[0] in COMMANDS, f"{name}: {' '.join(words)}"
            subject = given[1:2] if given[0] == "bench" else []  # its options depend on what is measured
            unknown = {word for word in given if word.startswith("--")} - options(given[0], *subject)
            assert not unknown, f"{name}: {' '.join(words)}"
            found += 1
    assert found > 30


def test_shown_commands_parse():
    """As they stand: values out of range and missing arguments fail too."""
    for name, text in TEXTS.items():
        for words in shown_commands(text):
            try:
                command_parser(words[1]).parse_args(words[2:])
            except SystemExit:
                pytest.fail(f"{name}: {' '.join(words)}")


def test_the_page_of_the_command_line_has_every_command():
    text = TEXTS["docs/command_line.md"]
    assert set(re.findall(r"^\| `svp ([\w-]+)` \|", text, re.MULTILINE)) == set(COMMANDS)
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert option == "--debug" or any(option in options(name) for name in COMMANDS), option


def test_downloads_that_the_pages_show_can_be_downloaded():
    for name, text in TEXTS.items():
        for words in commands(text):
            if words[1] == "download":
                for entry in words[2 : words.index("--models") if "--models" in words else None]:
                    known = entry in ENTRIES and ENTRIES[entry].repository
                    assert entry in ("...", "NAME") or known, f"{name}: {' '.join(words)}"


def test_nodes_exist_and_the_table_has_all_of_them():
    classes = {node.__name__ for node in NODE_CLASSES}
    for name, text in TEXTS.items():
        named = set(re.findall(r"`(SVP[A-Z][a-z]\w+)`", without_code(text)))
        assert named <= classes, f"{name}: {named - classes}"
    table = README.split("## Nodes")[1].split("\n## ")[0]
    assert set(re.findall(r"`(SVP\w+)`", table)) - {"SVP_MODEL"} == classes


def test_the_table_of_workflows_has_all_of_them():
    named = re.findall(r"^\| `(\w+)\.json`", README, re.MULTILINE)
    assert sorted(named) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


def test_recipes_phases_and_keys_exist():
    text = TEXTS["docs/training.md"]
    listed = re.findall(r"^\| `recipes/(\w+)\.toml`", text, re.MULTILINE)
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "recipes").glob("*.toml"))
    phases, renamed = text.split("### Renamed keys")
    assert tuple(re.findall(r"^\| `([a-z_]\w*)` \| ", phases, re.MULTILINE)) == PHASES
    assert dict(re.findall(r"\| `(\w+)` \| `(\w+)` ", renamed)) == ALIASES
    for page in TEXTS.values():
        for override in re.findall(r"--set ([a-z_]\w*\.[\w.]+=[\w.-]+)", page):
            if override.startswith(("vae.", "denoiser.", "mask.", "data.people")):  # of a training with a budget
                load_face_recipe(ROOT / "recipes" / "demo256.toml", [override])
            elif override.startswith("faces."):
                load_reading_recipe(ROOT / "recipes" / "portrait_reader.toml", (override,))
            else:
                load_recipe(ROOT / "recipes" / "svp.toml", [override])


def test_the_files_and_functions_of_the_architecture_exist():
    """`folder/file.py` stands below svp_models or the root, and `function` behind it is defined there."""
    text = TEXTS["docs/architecture.md"]
    for path, called in re.findall(r"`([\w/]+\.py)`(?:: ((?:`[\w.]+`(?:, )?)+))?", text):
        file = next((base / path for base in (PACKAGE, ROOT) if (base / path).is_file()), None)
        assert file, path
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        for name in re.findall(r"[\w.]+(?=`)", called):
            assert set(name.split(".")) <= names, f"{path}: {name}"


def test_the_figures_of_the_evaluation_are_those_that_its_help_explains():
    explained = help_of("evaluate")
    rows = re.findall(r"^\| (`[a-z].*?) \|", TEXTS["docs/evaluation.md"], re.MULTILINE)
    assert rows
    for figure in re.findall(r"`([\w*]+)`", " ".join(rows)):
        assert figure in explained.replace("\n", " "), figure


def test_the_layers_of_the_architecture_are_those_that_a_test_enforces():
    block = TEXTS["docs/architecture.md"].split("## Layers")[1].split("```")[1]
    layers = [set(re.findall(r"\w+", line.partition("#")[0])) for line in block.strip().splitlines()]
    assert layers == [{"nodes"}, *LEVELS[::-1]]


def test_the_messages_in_the_table_of_the_weights_are_those_of_the_software():
    known, table = messages(), TEXTS["docs/weights.md"].split("### Messages")[1]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert rows
    for quoted in re.findall(r"`([^`]+)`", " ".join(rows)):
        for piece in filter(None, (part.strip(" :") for part in quoted.split("..."))):
            assert piece in known or "svp download" in piece, piece


def test_the_scripts_of_the_pictures_import():
    for path in sorted((ROOT / "docs").glob("*.py")):
        place = importlib.util.spec_from_file_location(f"picture_script_{path.stem}", path)
        place.loader.exec_module(importlib.util.module_from_spec(place))
