"""The texts that the web page shows of the nodes, as it looks them up in `locales/<language>/`.

The schemas are the only place where English is written: `python -m svp_portrait.nodes.translations` copies it from there to
`locales/en`. Each translation notes in `translated.json` which English it was made from, so that the tests can name those
that are out of date; `python -m svp_portrait.nodes.translations zh ja` says that these two are up to date with all of it.
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
    """A text as a message that shows it."""
    return SPECIAL.sub(lambda found: f"{{'{found[0]}'}}", text)


def node_texts() -> dict[str, Any]:
    """What `nodeDefs.json` holds in English. Options of a combo are not in it: the web page shows them as they are."""
    texts = {}
    for node in NODE_CLASSES:
        schema = node.define_schema()
        texts[schema.node_id] = {
            "display_name": message(schema.display_name),
            "description": message(schema.description),
            "inputs": {each.id: {"name": each.id, "tooltip": message(each.tooltip)} for each in schema.inputs},
            "outputs": {
                str(place): {"name": each.display_name, "tooltip": message(each.tooltip)}
                for place, each in enumerate(schema.outputs)
            },
        }
    return texts


def main_texts() -> dict[str, Any]:
    """What `main.json` holds in English: the parts of the nodes' categories, and the types of the pack's sockets."""
    schemas = [node.define_schema() for node in NODE_CLASSES]
    categories = [part for schema in schemas for part in schema.category.split("/")]
    sockets = [each.get_io_type() for schema in schemas for each in (*schema.inputs, *schema.outputs)]
    own = [kind for socket in sockets for kind in socket.split(",") if kind.startswith("SVP_")]
    return {"nodeCategories": {each: message(each) for each in categories}, "dataTypes": {each: each for each in own}}


def english_texts() -> dict[str, Any]:
    """By the name of the file they belong in."""
    return {"main": main_texts(), "nodeDefs": node_texts()}


def flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(Path with dots, text) of every text."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def fingerprints(english: dict[str, Any]) -> dict[str, str]:
    """A short hash of every English text."""
    return {path: hashlib.sha256(text.encode()).hexdigest()[:10] for path, text in flat(english)}


def read(language: str, name: str) -> dict[str, Any]:
    """The content of `locales/<language>/<name>.json`."""
    return json.loads((LOCALES / language / f"{name}.json").read_text(encoding="utf-8"))


def write(language: str, name: str, content: dict[str, Any]) -> None:
    """The other way round."""
    file = LOCALES / language / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main(translated: list[str]) -> None:
    """Writes the English texts, and that these languages are translated from them."""
    english = english_texts()
    for name, texts in english.items():
        write("en", name, texts)
    for language in translated:
        write(language, NOTES, fingerprints(english))


if __name__ == "__main__":
    main(sys.argv[1:])
