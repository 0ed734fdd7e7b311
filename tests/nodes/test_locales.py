"""The translations: complete, up to date with the schemas, readable for the web page, and true to what is technical in a text."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache

import pytest

from svp_portrait.nodes import translations
from svp_portrait.nodes.registry import NODE_CLASSES
from svp_portrait.nodes.translations import LOCALES, NOTES, english_texts, fingerprints, flat, message, read

from ..looping import for_all

PAGE_LANGUAGES = set("en zh zh-TW ru ja ko fr es ar tr pt-BR".split())  # that the web page can be set to
LANGUAGES = sorted(item.name for item in LOCALES.iterdir() if item.is_dir())
TRANSLATIONS = [item for item in LANGUAGES if item != "en"]
SCRIPTS = {"zh": r"[\u4e00-\u9fff]", "zh-TW": r"[\u4e00-\u9fff]", "ja": r"[\u3040-\u30ff]", "ko": r"[\uac00-\ud7a3]", "ru": r"[\u0400-\u04ff]"}  # fmt: skip
ESCAPED = re.compile(r"\{'[{}@|$]'\}")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
FILE_OR_PATH = re.compile(r"\w+/[\w/.]*\w|\w+/(?!\w)|\w*\.(?:json|safetensors)|\bmp4\b", re.ASCII)
FILES = ["main", "nodeDefs"]
REWRITE = "python -m svp_portrait.nodes.translations"

ENGLISH = english_texts()
TEXTS = dict(flat(ENGLISH))
SCHEMAS = {node.__name__: node.define_schema() for node in NODE_CLASSES}
NODE_NAMES = {schema.display_name.removesuffix(" (SVP)"): name for name, schema in SCHEMAS.items()}


@cache
def translations_of_all() -> dict[str, dict[str, str]]:
    """Language -> path of a text -> what it is there."""
    return {language: dict(flat({name: read(language, name) for name in FILES})) for language in TRANSLATIONS}


def prose() -> list[str]:
    """The paths of the texts that are sentences."""
    return [path for path in TEXTS if path.endswith((".tooltip", ".description"))]


def without_partner(english: Counter, other: Counter) -> list[str]:
    return sorted((english - other).elements())


def test_the_languages_are_known_to_the_web_page():
    assert {"en", "zh", "ja"} <= set(LANGUAGES) <= PAGE_LANGUAGES


def test_the_folders_hold_what_the_host_reads_in_one_format():
    """The format is that of `translations.write`, so that a change shows as the lines that changed."""
    for language in LANGUAGES:
        files = {path.name: path for path in (LOCALES / language).iterdir()}
        assert set(files) == {f"{name}.json" for name in (*FILES, *([] if language == "en" else [NOTES]))}
        for file in files.values():
            text = file.read_text(encoding="utf-8")
            assert text == json.dumps(json.loads(text), ensure_ascii=False, indent=2) + "\n", file


def test_english_is_that_of_the_schemas():
    for name in FILES:
        assert read("en", name) == ENGLISH[name], f"run {REWRITE}"


@for_all(translations_of_all)
def test_nothing_is_missing_and_nothing_left_over(translated):
    assert set(translated) == set(TEXTS)
    assert [path for path, text in translated.items() if not text or text != text.strip()] == []


@for_all(lambda: {language: language for language in TRANSLATIONS})
def test_nothing_is_out_of_date(language):
    noted, now = read(language, NOTES), fingerprints(ENGLISH)
    outdated = {path: TEXTS[path] for path in now if noted.get(path) != now[path]}
    assert outdated == {}, f"translate these anew in locales/{language}, then run {REWRITE} {language}"
    assert set(noted) == set(now), f"run {REWRITE} {language}"


@for_all(translations_of_all)
def test_the_web_page_can_read_every_text(translated):
    """vue-i18n takes an unescaped { } @ | $ for an instruction and shows something else, or nothing."""
    broken = {path: text for path, text in translated.items() if translations.SPECIAL.search(ESCAPED.sub("", text))}
    assert broken == {}


@for_all(lambda: {language: (language, texts) for language, texts in translations_of_all().items()})
def test_sentences_are_translated(both):
    language, translated = both
    script = SCRIPTS.get(language)
    same = [path for path in prose() if translated[path] == TEXTS[path]]
    foreign = [path for path in prose() if script and not re.search(script, translated[path])]
    assert same == [] and foreign == []


@for_all(translations_of_all)
def test_names_tell_nodes_and_inputs_apart(translated):
    names = [translated[f"nodeDefs.{node}.display_name"] for node in SCHEMAS]
    assert all(name.endswith(" (SVP)") for name in names) and len(set(names)) == len(names)
    for node, schema in SCHEMAS.items():
        inputs = [translated[f"nodeDefs.{node}.inputs.{given.id}.name"] for given in schema.inputs]
        assert len(set(inputs)) == len(inputs), node


@for_all(translations_of_all)
def test_numbers_files_and_paths_are_kept(translated):
    """A default or range in a tooltip is the same in every language."""
    for pattern in (NUMBER, FILE_OR_PATH):
        lost = {
            path: missing
            for path in prose()
            if (missing := without_partner(*(Counter(pattern.findall(item[path])) for item in (TEXTS, translated))))
        }
        assert lost == {}


@for_all(translations_of_all)
def test_options_are_named_as_the_page_shows_them(translated):
    """The page does not translate what is in a list, so a tooltip that explains an option has to name it in English."""
    lost = []
    for node, schema in SCHEMAS.items():
        for given in schema.inputs:
            path = f"nodeDefs.{node}.inputs.{given.id}.tooltip"
            options = given.as_dict().get("options") or []
            explained = [option for option in options if re.search(rf"(?<!\w){re.escape(option)}[:,']", TEXTS[path])]
            lost += [(path, option) for option in explained if option not in translated[path]]
    assert lost == []


@for_all(translations_of_all)
def test_other_nodes_and_inputs_are_called_what_they_are_called(translated):
    """A tooltip that sends the user to another node or input uses the name that stands on it in that language."""
    titles = re.compile("|".join(sorted(map(re.escape, NODE_NAMES), key=len, reverse=True)))
    wrong = []
    for path in prose():
        node = path.split(".")[1]
        for title in set(titles.findall(TEXTS[path])):
            called = translated[f"nodeDefs.{NODE_NAMES[title]}.display_name"].removesuffix(" (SVP)")
            wrong += [(path, called)] if called not in translated[path] else []
        for given in SCHEMAS[node].inputs:
            called = translated[f"nodeDefs.{node}.inputs.{given.id}.name"]
            named = "_" in given.id and re.search(rf"\b{given.id}\b", TEXTS[path])
            wrong += [(path, called)] if named and called not in translated[path] else []
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Frames per second.", "Frames per second."),
        ("a@b | {x}", "a{'@'}b {'|'} {'{'}x{'}'}"),
        ("100 $", "100 {'$'}"),
    ],
)
def test_special_characters_are_escaped(text, shown):
    assert message(text) == shown


def test_the_command_writes_english_and_notes_what_is_translated(tmp_path, monkeypatch):
    monkeypatch.setattr(translations, "LOCALES", tmp_path)
    translations.main([])
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json")) == [
        "en/main.json",
        "en/nodeDefs.json",
    ]
    assert {name: read("en", name) for name in FILES} == ENGLISH
    translations.main(["ja"])
    assert read("ja", NOTES) == fingerprints(ENGLISH)


def test_a_changed_english_text_has_another_fingerprint():
    before, after = ({"nodeDefs": {"SVPSampler": {"display_name": item}}} for item in ("Sampler", "The Sampler"))
    assert list(fingerprints(before)) == ["nodeDefs.SVPSampler.display_name"]
    assert fingerprints(before) != fingerprints(after)
