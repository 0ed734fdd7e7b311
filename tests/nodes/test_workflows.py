"""The bundled workflows: valid for the runner, and the same graph in both forms."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from svp_portrait.nodes.host import folder_paths
from svp_portrait.nodes.registry import NODE_CLASSES
from svp_portrait.svp_models.checkpoints.catalog import entry_named
from svp_portrait.svp_models.headless.core_nodes import core_nodes
from svp_portrait.svp_models.headless.folders import Folders
from svp_portrait.svp_models.headless.graph import check_graph, load_graph
from svp_portrait.svp_models.headless.runner import build_registry

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NAMES = ["face_restore", "portrait", "style_interpolation", "style_library", "train_style", "vexpress_portrait"]
WEIGHTS = [  # what a graph needs beside the built-in model, where `svp download` puts it
    *(f"svp/vexpress/{file.name}" for file in entry_named("vexpress").files),
    "vae/vae-ft-mse-840000-ema-pruned.safetensors",
    "audio_encoders/wav2vec2-base-960h/model.safetensors",
]
ASSETS = ["portrait.png", "portrait_wide.png", "speech.wav", "style_happy.mp4", "style_sad.mp4", "driving.mp4"]
SCHEMAS = {each.__name__: each.define_schema() for each in NODE_CLASSES}
CORE_WIDGETS = {  # the first widgets of each node; others only show
    "LoadImage": ["image"],
    "LoadAudio": ["audio"],
    "LoadVideo": ["file"],
    "ImageScale": ["upscale_method", "width", "height", "crop"],
}
NOTES = {"MarkdownNote"}  # of the front end alone
SEEDS = ("seed", "noise_seed")  # inputs of these names get a control from the front end unless they refuse it
TITLE_BAR = 30  # pixels above a node's position
OLD_GRAPHS = Path(__file__).with_name(
    "graphs"
)  # as earlier releases saved them: a folder of drawn ones each, and their api
OLD_FILES = ["svp_style_layers/layer.safetensors", "svp_styles/style.safetensors"]


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


def drawn(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / f"{name}.json").read_text())


def api(name: str) -> dict[str, Any]:
    return json.loads((WORKFLOWS / "api" / f"{name}.json").read_text())


def widget_names(node_type: str) -> list[str | None]:
    """The input behind each widget value; None for one that is no input."""
    if node_type not in SCHEMAS:
        return list(CORE_WIDGETS.get(node_type, ()))
    names: list[str | None] = []
    required_first = sorted(SCHEMAS[node_type].inputs, key=lambda given: given.optional)  # the host's order
    for each in required_first:
        options = each.as_dict()
        if "default" in options:
            names.append(each.id)
        if options.get("control_after_generate", each.id in SEEDS):
            names.append(None)
    return names


def as_api(graph: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the host's front end posts for a drawn graph."""
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    nodes = {}
    for node in (each for each in graph["nodes"] if each["type"] not in NOTES):
        names = widget_names(node["type"])  # of core nodes those that count, which come first
        inputs = dict(zip(names, node["widgets_values"][: len(names)], strict=True))
        inputs.update({each["name"]: sources[each["link"]] for each in node["inputs"] if each["link"] is not None})
        inputs.pop(None, None)
        nodes[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return nodes


def test_there_are_these_workflows():
    assert sorted(path.stem for path in WORKFLOWS.glob("*.json")) == NAMES
    assert sorted(path.stem for path in (WORKFLOWS / "api").glob("*.json")) == NAMES


def problems(path: Path, folder: Path) -> list[str]:
    """What the runner has against a graph in API form, with the assets in that folder."""
    for asset in ASSETS:
        (folder / asset).touch()
    registry = build_registry([*core_nodes(Folders(folder, folder, folder)), *NODE_CLASSES])
    return check_graph(load_graph(path), registry.specs, registry.nodes)


def put_models(folder: Path, files: list[str]) -> None:
    """Empty files below `models` of that folder, which the nodes then look in."""
    folder_paths.use(folder, folder / "models")
    for each in files:
        path = folder / "models" / each
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_runner_accepts_it(name, folders):
    put_models(folders, WEIGHTS)
    assert problems(WORKFLOWS / "api" / f"{name}.json", folders) == []


@pytest.mark.parametrize(
    "path", sorted(OLD_GRAPHS.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_graphs_of_earlier_releases_still_load(path, folders):
    """Both forms mean what they meant: values saved by place arrive at the inputs they were saved for, and all are valid."""
    put_models(folders, [*WEIGHTS, *OLD_FILES])
    then = path.parent / "api" / path.name
    posted = {
        key: {"class_type": n["class_type"], "inputs": n["inputs"]} for key, n in json.loads(then.read_text()).items()
    }
    assert as_api(json.loads(path.read_text())) == posted
    assert problems(then, folders) == []


def test_missing_weights_are_told_with_their_cure(folders):
    graph = WORKFLOWS / "api" / "vexpress_portrait.json"
    put_models(folders, [])
    model, encoder = problems(graph, folders)
    assert model.startswith('node 1 (SVPLoadModel "Model"): denoising_unet.bin') and "svp download vexpress --" in model
    assert "SVPLoadAudioEncoder" in encoder and "svp download wav2vec2-base-960h" in encoder
    put_models(folders, WEIGHTS[:5])
    model, _ = problems(graph, folders)
    assert "svp download sd-vae-ft-mse --" in model


def test_the_note_names_the_downloads_of_its_graph():
    (note,) = [each for each in drawn("vexpress_portrait")["nodes"] if each["type"] in NOTES]
    (text,) = note["widgets_values"]
    assert "svp download vexpress sd-vae-ft-mse wav2vec2-base-960h --models" in text
    assert entry_named("buffalo_l").source in text and entry_named("buffalo_l").folder in text


def test_both_forms_are_the_same_graph(name):
    posted = {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in api(name).items()}
    assert as_api(drawn(name)) == posted


def test_widget_values_are_complete(name):
    for node in drawn(name)["nodes"]:
        if node["type"] in SCHEMAS:
            assert len(node["widgets_values"]) == len(widget_names(node["type"])), node["type"]


def test_links_and_slots_agree(name):
    graph = drawn(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert graph["last_node_id"] == max(nodes) and graph["last_link_id"] == max(link[0] for link in graph["links"])
    for link, source, source_slot, target, target_slot, kind in graph["links"]:
        output, given = nodes[source]["outputs"][source_slot], nodes[target]["inputs"][target_slot]
        assert link in output["links"] and given["link"] == link and output["type"] == kind
        assert kind in given["type"].split(",")
    for node in graph["nodes"]:
        if node["type"] in SCHEMAS:
            types = {each.id: each.get_io_type() for each in SCHEMAS[node["type"]].inputs}
            assert {each["name"]: each["type"] for each in node["inputs"]}.items() <= types.items()
            wanted = [each.get_io_type() for each in SCHEMAS[node["type"]].outputs]
            assert [each["type"] for each in node["outputs"]] == wanted


def test_nodes_do_not_overlap(name):
    boxes = [(node["type"], *node["pos"], *node["size"]) for node in drawn(name)["nodes"]]
    for (a, ax, ay, aw, ah), (b, bx, by, bw, bh) in itertools.combinations(boxes, 2):
        apart = ax + aw <= bx or bx + bw <= ax or ay + ah <= by - TITLE_BAR or by + bh <= ay - TITLE_BAR
        assert apart, f"{a} and {b}"
