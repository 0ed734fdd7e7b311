"""ComfyUI's web page, driven the way a user does it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ..host.server import SECONDS_TO_RUN, Server

SLOW = 120_000  # milliseconds; the page is drawn in software and may share its cores
PACK = "svp-portrait"
READY = "!!(window.app?.graph && window.LiteGraph?.registered_node_types?.SVPSampler && window.app.extensionManager)"
# Nodes 2.0 draws each as an element of the page, the canvas within its bounds.
NODES = """() => window.app.graph._nodes.map((node) => {
    const [x, y, w, h] = node.getBounding(), zoom = window.app.canvas.ds.scale;
    const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect();
    const [width, height] = drawn ? [drawn.width / zoom, drawn.height / zoom] : [w, h];
    return {id: Number(node.id), type: node.type, title: node.title, known: node.type in window.LiteGraph.registered_node_types,
            red: !!node.has_errors || (node.inputs ?? []).some((input) => input.hasErrors),
            x, y, width, height};
})"""
ZOOM = "() => window.app.canvas.ds.scale"
ERRORS = "[role=dialog], .p-toast-message-error, [data-testid='error-overlay']"
SEARCH = ".comfy-vue-node-search-container input, input[role=combobox], [role=dialog] input"
FOUND = "[role=option], li, [data-testid='result-item']"


class FrontEnd:
    """One open page. `page` is Playwright's."""

    def __init__(self, page: Any, server: Server):
        self.page, self.server = page, server
        page.set_default_timeout(SLOW)
        page.route("**/templates/*.webp", lambda route: route.abort())  # moving pictures of the host's own templates

    def open(self) -> None:
        self.page.goto(self.server.address, wait_until="commit")
        self.page.wait_for_function(READY)
        self.settle()

    def command(self, name: str) -> None:
        """One of the page's commands, as the menus and keys start them."""
        self.page.evaluate("(name) => window.app.extensionManager.command.execute(name)", name)

    def open_templates(self) -> Any:
        """The dialog with the pack's workflows in view."""
        self.command("Comfy.BrowseTemplates")
        pack = self.page.get_by_text(PACK, exact=True)
        dialog = self.page.locator("[role=dialog]").filter(has=pack).first  # not that of missing models, which follows
        dialog.get_by_text(PACK, exact=True).dispatch_event("click")
        return dialog

    def open_template(self, name: str) -> None:
        dialog = self.open_templates()
        marker = self.page.evaluate(
            "() => window.app.graph._nodes.length && (window.app.graph._nodes[0].before = true)"
        )
        self.page.get_by_test_id(f"template-workflow-{name}").dispatch_event("click")
        dialog.wait_for(state="hidden")
        gone = "() => window.app.graph._nodes.length && !window.app.graph._nodes.some((node) => node.before)"
        self.page.wait_for_function(gone if marker else "() => window.app.graph._nodes.length")
        self.settle()

    def search(self, words: str) -> Any:
        """What a double click on the empty canvas offers when these words are typed."""
        self.page.evaluate("() => window.app.graph.clear()")
        box = self.page.locator(SEARCH).first
        for _ in range(10):
            self.page.mouse.dblclick(800, 700)
            self.settle()
            if box.is_visible():
                break
        box.fill(words)
        self.settle()
        return self.page.locator(FOUND)

    def zoom(self) -> float:
        return self.page.evaluate(ZOOM)

    def settle(self, seconds: float = 2) -> None:
        """Lets the page draw."""
        self.page.wait_for_timeout(1000 * seconds)

    def fit(self) -> None:
        """The whole graph in view."""
        self.command("Comfy.Canvas.FitView")
        self.settle()

    def nodes(self) -> list[dict[str, Any]]:
        """The graph's nodes as they are drawn: place and size with the title bar, known, red."""
        return self.page.evaluate(NODES)

    def errors(self) -> list[str]:
        """What the page complains about."""
        return [each.inner_text() for each in self.page.locator(ERRORS).all() if each.is_visible()]

    def close_messages(self) -> None:
        """Closes what the page says of missing files."""
        self.page.keyboard.press("Escape")
        dismiss = self.page.get_by_test_id("error-overlay-dismiss")
        if dismiss.count():
            dismiss.click()
        self.settle(1)

    def posted(self) -> dict[str, Any]:
        """The graph as Run would post it."""
        return self.page.evaluate("async () => (await window.app.graphToPrompt()).output")

    def draw(self, on: bool) -> None:
        """Whether the graph is drawn: in software that takes what the host computes with."""
        self.page.evaluate(
            "(off) => { window.app.canvas.pause_rendering = off; window.app.canvas.setDirty(true, true); }", not on
        )

    def run(self) -> dict[str, Any]:
        """Presses Run; the host's history entry once it is done and the page shows it."""
        before = set(self.server.get("/history"))
        self.page.get_by_test_id("queue-button").click()
        self.settle()
        self.draw(False)
        until = time.monotonic() + SECONDS_TO_RUN
        while time.monotonic() < until:
            new = {key: entry for key, entry in self.server.get("/history").items() if key not in before}
            if new:
                (entry,) = new.values()
                assert entry["status"]["status_str"] == "success", entry["status"]
                self.draw(True)
                self.settle()
                return entry
            assert self.server.process.poll() is None, self.server.log()
            assert not self.errors(), self.errors()
            self.settle(2)
        pytest.fail(f"not done after {SECONDS_TO_RUN} s: {self.server.log()}")

    def place(self, node: int, x: float, y: float) -> tuple[float, float]:
        """Where a point of a node, in the graph's units from its upper left corner, is in the window."""
        where = """([id, x, y]) => {
            const canvas = window.app.canvas, node = window.app.graph.getNodeById(id), view = canvas.canvas.getBoundingClientRect();
            const [a, b] = canvas.ds.convertOffsetToCanvas([node.pos[0] + x, node.pos[1] + y]);
            return [view.left + a, view.top + b];
        }"""  # fmt: skip
        return tuple(self.page.evaluate(where, [node, x, y]))

    def show(self, node: int, scale: float = 1.0) -> None:
        """Brings a node into the middle of the window."""
        centre = """([id, scale]) => {
            const canvas = window.app.canvas, node = window.app.graph.getNodeById(id);
            canvas.ds.scale = scale; canvas.centerOnNode(node); canvas.setDirty(true, true);
        }"""
        self.page.evaluate(centre, [node, scale])
        self.settle(1)

    def node_of_type(self, kind: str) -> int:
        """The id of the one node of a type."""
        (found,) = [each["id"] for each in self.nodes() if each["type"] == kind]
        return found
