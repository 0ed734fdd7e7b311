"""Node help: a page for every node in every language, and what it says of inputs, outputs, numbers and messages is so."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import svp_portrait
from svp_portrait.nodes.head_motion import EXAMPLE_POINTS
from svp_portrait.nodes.host import NO_FILES
from svp_portrait.nodes.registry import NODE_CLASSES
from svp_portrait.svp_models.checkpoints.model_file import PORTRAIT_MODEL, load_model
from svp_portrait.svp_models.presets import PRESETS

from ..looping import for_all

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / svp_portrait.WEB_DIRECTORY / "docs"
SCHEMAS = {node.__name__: node.define_schema() for node in NODE_CLASSES}
WORDS = {  # headings, and the words that the tables and examples use
    "en": SimpleNamespace(
        headings=["Inputs", "Outputs", "Example", "Common mistakes", "In the paper"],
        default="default",
        optional="(optional)",
        template=r"[Tt]emplates?",
    ),
    "zh": SimpleNamespace(
        headings=["输入", "输出", "示例", "常见错误", "与论文的对应"],
        default="默认",
        optional="（可选）",
        template="模板",
    ),
    "ja": SimpleNamespace(
        headings=["入力", "出力", "例", "よくある間違い", "論文との対応"],
        default="既定",
        optional="（任意）",
        template="テンプレート",
    ),
}
# What these offer depends on the files there are.
FILE_LISTS = {
    ("SVPLoadModel", "model"),
    ("SVPLoadAudioEncoder", "audio_encoder"),
    ("SVPLoadStyleLayer", "style_layer"),
    ("SVPStyleLoad", "style"),
    ("SVPMotionStyleLoad", "style"),
    ("SVPMotionLoad", "motion"),
    ("SVPPrepareDataset", "audio_encoder"),
    ("SVPLoadMotionGenerator", "generator"),
    ("SVPLoadLivePortrait", "liveportrait"),
}
CODE = re.compile(r"`([^`]+)`")
IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
MESSAGE = re.compile(r"^- \*\*`([^`]+)`", re.MULTILINE)
LARGEST_IMAGE = 60_000  # bytes


def page_path(node: str, language: str) -> Path:
    """As the host's front end asks for it: docs/NODE/LANGUAGE.md, else docs/NODE.md."""
    return DOCS / f"{node}.md" if language == "en" else DOCS / node / f"{language}.md"


def localized(node: str, language: str) -> dict[str, Any]:
    """What the interface shows for a node in that language; empty where it is not translated. Pages name ids in English."""
    if language == "en":
        return {}
    path = ROOT / "locales" / language / "nodeDefs.json"
    return json.loads(path.read_text(encoding="utf-8")).get(node, {}) if path.is_file() else {}


def languages() -> dict[str, str]:
    return {language: language for language in WORDS}


@cache
def pages() -> dict[str, SimpleNamespace]:
    """Path -> a page: its text, its sections by the English heading, and the schema of its node."""
    found = {}
    for language, words in WORDS.items():
        for node, schema in SCHEMAS.items():
            path = page_path(node, language)
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
                own = dict(zip(parts[1::2], parts[2::2], strict=True))
                names = zip(WORDS["en"].headings, words.headings, strict=True)
                sections = {name: own.get(heading, "") for name, heading in names}
                found[path.relative_to(ROOT).as_posix()] = SimpleNamespace(
                    node=node, language=language, text=text, headings=list(own), sections=sections, schema=schema
                )
    return found


def entries(section: str) -> dict[str, SimpleNamespace]:
    """id -> what is told of an input or output: `facts` after its name, such as type or default and range, and `text`."""
    found = re.findall(r"^\*\*`(\w+)`\*\*([^\n]*)\\\n([^\n]+)$", section, flags=re.MULTILINE)
    return {
        name: SimpleNamespace(shown=facts.split(" · ")[0].strip(), facts=facts.split(" · ")[1:], text=text)
        for name, facts, text in found
    }


def is_widget(given: Any) -> bool:
    return "default" in given.as_dict()


def test_every_node_has_its_page_in_every_language():
    wanted = {page_path(node, language).relative_to(ROOT).as_posix() for node in SCHEMAS for language in WORDS}
    assert wanted - set(pages()) == set()


def test_there_are_no_other_pages():
    english = {path.stem for path in DOCS.glob("*.md")}
    folders = {path.name for path in DOCS.iterdir() if path.is_dir()} - {"images"}
    assert english == set(SCHEMAS) and folders <= set(SCHEMAS)
    assert {path.name for path in DOCS.glob("SVP*/*")} <= {f"{name}.md" for name in WORDS}


@for_all(pages)
def test_it_has_the_title_that_the_interface_shows(page):
    shown = localized(page.node, page.language).get("display_name", page.schema.display_name)
    assert page.text.splitlines()[0] == f"# {shown}"


@for_all(pages)
def test_it_has_all_sections_in_order(page):
    wanted = WORDS[page.language].headings
    assert [name for name in page.headings if name in wanted] == wanted
    introduction = page.text.split("\n## ")[0].splitlines()[1:]
    assert any(introduction), "what the node does comes first"
    assert page.sections["Common mistakes"].count("\n- **") >= 2


@for_all(pages)
def test_every_input_and_output_is_explained(page):
    """Sockets come first, then widgets, both as on the node; outputs have no facts but their type."""
    inputs, outputs = entries(page.sections["Inputs"]), entries(page.sections["Outputs"])
    sockets = [given.id for given in page.schema.inputs if not is_widget(given)]
    widgets = [given.id for given in page.schema.inputs if is_widget(given)]
    assert list(inputs) == [*sockets, *widgets]
    assert list(outputs) == [output.id for output in page.schema.outputs]
    for given in (*inputs.values(), *outputs.values()):
        assert given.text.endswith((".", "。"))


@for_all(pages)
def test_types_of_sockets_are_right(page):
    inputs, outputs = entries(page.sections["Inputs"]), entries(page.sections["Outputs"])
    for given in page.schema.inputs:
        if not is_widget(given):
            (fact,) = inputs[given.id].facts
            assert re.findall(r"[A-Z_]{3,}", fact) == given.get_io_type().split(","), given.id
            assert (WORDS[page.language].optional in fact) == bool(given.optional), given.id
    for output in page.schema.outputs:
        assert outputs[output.id].facts == [output.get_io_type()], output.id


@for_all(pages)
def test_numbers_and_choices_of_widgets_are_right(page):
    inputs = entries(page.sections["Inputs"])
    for given in filter(is_widget, page.schema.inputs):
        widget, (default, span) = given.as_dict(), inputs[given.id].facts
        assert default.startswith(f"{WORDS[page.language].default} "), given.id
        told = CODE.findall(default)
        if given.get_io_type() in ("INT", "FLOAT"):
            assert [float(number) for number in told] == [widget["default"]], given.id
            assert [float(number) for number in CODE.findall(span)] == [widget["min"], widget["max"]], given.id
            continue
        listed = (page.node, given.id) in FILE_LISTS
        if widget.get("options") and not listed:
            assert CODE.findall(span) == widget["options"], given.id
        if widget["default"] != EXAMPLE_POINTS and not (listed and not told):
            assert told == [str(widget["default"])], given.id


@for_all(pages)
def test_inputs_and_outputs_are_called_as_the_interface_calls_them(page):
    texts = localized(page.node, page.language)
    outputs = [texts.get("outputs", {}).get(str(place), {}) for place in range(len(page.schema.outputs))]
    known = [(given.id, texts.get("inputs", {}).get(given.id, {}), "Inputs") for given in page.schema.inputs]
    known += [(output.id, text, "Outputs") for output, text in zip(page.schema.outputs, outputs, strict=True)]
    for name, text, section in known:
        shown = text.get("name", name)
        assert entries(page.sections[section])[name].shown == ("" if shown == name else shown), name


@for_all(pages)
def test_links_lead_somewhere(page):
    """The front end takes what is relative from docs/, in every language, and only pictures may be relative."""
    for words, source in IMAGE.findall(page.text):
        assert words and '"' not in words
        assert (DOCS / source).is_file(), source
    assert all(text.startswith("https://") for text in LINK.findall(page.text))


@for_all(pages)
def test_templates_exist(page):
    word = WORDS[page.language].template
    named = re.findall(rf"{word}[^`.。]*`(\w+)`", page.text)
    assert all((ROOT / "workflows" / f"{item}.json").is_file() for item in named), named


@cache
def messages() -> str:
    """All texts in the sources, one a line, with a zero byte for every value that is put in."""
    found = []
    for folder in ("nodes", "svp_models"):
        for path in (ROOT / folder).rglob("*.py"):
            for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(item, ast.JoinedStr):
                    found.append(
                        "".join(
                            getattr(part, "value", "") if isinstance(part, ast.Constant) else "\0"
                            for part in item.values
                        )
                    )
                elif isinstance(item, ast.Constant) and isinstance(item.value, str):
                    found.append(item.value)
    return "\n".join(found)


@for_all(pages)
def test_quoted_messages_are_those_of_the_software(page):
    texts = messages()
    quotes = [quoted for quoted in MESSAGE.findall(page.sections["Common mistakes"]) if quoted != NO_FILES]
    parts = [part.strip(" :") for quoted in quotes for part in quoted.split("...")]
    assert [part for part in parts if part not in texts] == [], "in no message"


@for_all(languages)
def test_the_models_are_described_as_they_are(language):
    text = page_path("SVPLoadModel", language).read_text(encoding="utf-8")
    lines = re.findall(r"^- \*\*[^*]+\*\*(.* x .*)$", text, flags=re.MULTILINE)
    told = [[float(item) for item in re.findall(r"\d+\.?\d*", line)[:5]] for line in lines]
    wanted = [load_model(PORTRAIT_MODEL).config, *(PRESETS[item] for item in ("demo", "sd15", "vexpress"))]
    assert told == [[item.size, item.size, item.fps, item.steps, item.cfg] for item in wanted]


@for_all(languages)
def test_the_example_points_are_shown(language):
    assert f"```\n{EXAMPLE_POINTS}\n```" in page_path("SVPHeadKpsManual", language).read_text(encoding="utf-8")


def test_pictures_are_small_and_shown():
    shown = {source for path in DOCS.rglob("*.md") for _, source in IMAGE.findall(path.read_text(encoding="utf-8"))}
    pictures = {path for path in (DOCS / "images").iterdir()}
    assert {f"images/{path.name}" for path in pictures} == shown
    assert all(path.stat().st_size <= LARGEST_IMAGE for path in pictures)
