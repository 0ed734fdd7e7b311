"""The host serves the help pages where its web page looks for them, and their pictures."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

import pytest

from .server import ROOT

DOCS = ROOT / "web" / "docs"
NODES = sorted(path.stem for path in DOCS.glob("*.md"))


@pytest.fixture(scope="module")
def folder(server) -> str:
    """As the web page finds it: the second part of the nodes' python module."""
    (module,) = {each["python_module"] for name, each in server.get("/object_info").items() if name in NODES}
    return f"/extensions/{module.split('.')[1]}/docs"


def fetched(server, path: str) -> tuple[str, bytes]:
    """Content type and content."""
    with urllib.request.urlopen(server.address + path, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read()


def test_every_node_has_its_page(server, folder):
    pack = {name for name, each in server.get("/object_info").items() if each["category"].startswith("SVP Portrait")}
    assert pack == set(NODES)
    for name in NODES:
        kind, page = fetched(server, f"{folder}/{name}.md")
        assert "html" not in kind  # which the web page takes for a missing page
        assert page == (DOCS / f"{name}.md").read_bytes()


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_it_serves_other_languages(server, folder, language):
    for name in NODES:
        assert fetched(server, f"{folder}/{name}/{language}.md")[1] == (DOCS / name / f"{language}.md").read_bytes()


@pytest.mark.parametrize("language", ["en", "fr"])
def test_a_language_that_is_not_there_is_not_found(server, folder, language):
    """Only then the web page asks for the English one."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        fetched(server, f"{folder}/SVPSampler/{language}.md")
    assert raised.value.code == 404


def test_pictures_are_found_below_the_same_folder(server, folder):
    shown = {each for path in DOCS.rglob("*.md") for each in re.findall(r"!\[[^\]]*\]\((\S+)\)", path.read_text())}
    assert shown
    for each in shown:
        kind, picture = fetched(server, f"{folder}/{each}")
        assert kind.startswith("image/") and picture == (DOCS / each).read_bytes()
