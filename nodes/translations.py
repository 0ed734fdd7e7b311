"""Texts of the nodes for the web page, in `locales/<language>/`.

English is written in the schemas alone: `python -m svp_portrait.nodes.translations` copies it to `locales/en`. A translation
stores hashes of its English texts in `translated.json`, so that the tests name outdated ones;
`python -m svp_portrait.nodes.translations zh ja` marks these two as up to date.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .registry import NODE_CLASSES

LOCALES = Path(__file__).parents[1] / "locales"
NOTES = "translated"
SPECIAL = re.compile(r"[{}@|$]")  # of vue-i18n's message syntax, in which the web page reads every text


def message(text: str) -> str:
    """A text as an escaped message."""
    return SPECIAL.sub(lambda found: f"{{'{found[0]}'}}", text)


def node_texts() -> dict[str, Any]:
    """English content of `nodeDefs.json`. Options of a combo are not in it: the web page does not translate them."""
    texts = {}
    for node in NODE_CLASSES:
        schema = node.define_schema()
        texts[schema.node_id] = {
            "display_name": message(schema.display_name),
            "description": message(schema.description),
            "inputs": {spec.id: {"name": spec.id, "tooltip": message(spec.tooltip)} for spec in schema.inputs},
            "outputs": {
                str(index): {"name": output.display_name, "tooltip": message(output.tooltip)}
                for index, output in enumerate(schema.outputs)
            },
        }
    return texts


def main_texts() -> dict[str, Any]:
    """English content of `main.json`: the parts of the nodes' categories, and the pack's types."""
    schemas = [node.define_schema() for node in NODE_CLASSES]
    categories = [part for schema in schemas for part in schema.category.split("/")]
    types = [spec.get_io_type() for schema in schemas for spec in (*schema.inputs, *schema.outputs)]
    own = [name for names in types for name in names.split(",") if name.startswith("SVP_")]
    return {"nodeCategories": {name: message(name) for name in categories}, "dataTypes": {name: name for name in own}}


def english_texts() -> dict[str, Any]:
    """English texts by file name."""
    return {"main": main_texts(), "nodeDefs": node_texts()}


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(Path with dots, text) of all texts."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def fingerprints(english: dict[str, Any]) -> dict[str, str]:
    """A short hash of each English text, by path."""
    return {path: hashlib.sha256(text.encode()).hexdigest()[:10] for path, text in flat(english)}


def read(language: str, name: str) -> dict[str, Any]:
    """The content of `locales/<language>/<name>.json`."""
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def write(language: str, name: str, content: dict[str, Any]) -> None:
    """Writes `locales/<language>/<name>.json`."""
    file = LOCALES / language / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main(translated: list[str]) -> None:
    """Writes the English texts, and marks these languages as up to date."""
    english = english_texts()
    for name, texts in english.items():
        write("en", name, texts)
    for language in translated:
        write(language, NOTES, fingerprints(english))


if __name__ == "__main__":
    main(sys.argv[1:])
