"""The bundled workflows: valid for the runner, and the same graph in both forms."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from svp_portrait.nodes.host import folder_paths
from svp_portrait.nodes.registry import NODE_CLASSES
from svp_portrait.svp_models.checkpoints.model_zoo import HUB, entry_named
from svp_portrait.svp_models.cli.core_nodes import core_nodes
from svp_portrait.svp_models.cli.folders import Folders
from svp_portrait.svp_models.cli.graph import check_graph, load_graph
from svp_portrait.svp_models.cli.runner import build_registry

from ..looping import deviations, for_all

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
NAMES = [
    "expression_sliders", "face_restore", "portrait", "redub", "style_interpolation", "style_library", "talk", "talk_photo",
    "talk_photo_style", "train_style", "vexpress_portrait", "warp_portrait",
]  # fmt: skip
NEEDED = {  # entries of the model zoo whose weights a graph needs
    "expression_sliders": ["liveportrait"],
    "redub": ["liveportrait", "joyvasa"],
    "talk_photo": ["liveportrait", "joyvasa"],
    "talk_photo_style": ["liveportrait", "joyvasa"],
    "vexpress_portrait": ["vexpress", "sd-vae-ft-mse", "wav2vec2-base-960h"],
}
IN_THE_DIALOG = (".bin", ".pt", ".safetensors")  # files that the page's dialog of missing models can name
WEIGHTS = [  # what a graph needs beside the built-in model, where `svp download` puts it
    *(f"svp/vexpress/{file.name}" for file in entry_named("vexpress").files),
    "vae/vae-ft-mse-840000-ema-pruned.safetensors",
    "audio_encoders/wav2vec2-base-960h/model.safetensors",
    *(f"liveportrait/{file.name}" for file in entry_named("liveportrait").files),
    *(f"joyvasa/{file.name}" for file in entry_named("joyvasa").files),
]
ASSETS = ["portrait.png", "portrait_wide.png", "speech.wav", "style_happy.mp4", "style_sad.mp4", "driving.mp4"]
SCHEMAS = {node.__name__: node.define_schema() for node in NODE_CLASSES}
CORE_WIDGETS: dict[str, list[str]] = {  # the first widgets of each node; others only show
    "LoadImage": ["image"],
    "LoadAudio": ["audio"],
    "LoadVideo": ["file"],
    "ImageScale": ["upscale_method", "width", "height", "crop"],
}
NOTES = {"MarkdownNote"}  # of the front end alone
SEEDS = ("seed", "noise_seed")  # inputs of these names get a control from the front end unless they refuse it
TITLE_BAR = 30  # pixels above a node's position
SLOT, FIRST_SLOT, ROW = 20, 14, 24  # pixels: a socket's row, the middle of the first one, a widget's row
WINDOW = (1600, 862)  # pixels that the page gives the canvas in a window of 1600 x 900
FILLED, AROUND = 0.75, 10  # the share of the canvas that an opened graph fills, with so many pixels around it
LEGIBLE = {  # smallest zoom of a template as it is opened; the page hides texts below 0.58
    "talk": 0.8, "talk_photo": 0.7, "redub": 0.7, "portrait": 0.7, "style_interpolation": 0.7, "style_library": 0.7, "train_style": 0.68,
}  # fmt: skip
OLD_GRAPHS = Path(__file__).with_name(
    "graphs"
)  # as earlier releases saved them: a folder of drawn ones each, and their api
OLD_FILES = ["svp_style_layers/layer.safetensors", "svp_styles/style.safetensors"]


def names() -> dict[str, str]:
    return {name: name for name in NAMES}


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
    for item in required_first:
        options = item.as_dict()
        if "default" in options:
            names.append(item.id)
        if options.get("control_after_generate", item.id in SEEDS):
            names.append(None)
    return names


def optional_inputs(node_type: str) -> set[str | None]:
    return {item.id for item in SCHEMAS[node_type].inputs if item.optional} if node_type in SCHEMAS else set()


def as_api(graph: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What the host's front end posts for a drawn graph."""
    sources = {link[0]: [str(link[1]), link[2]] for link in graph["links"]}
    nodes = {}
    for node in (item for item in graph["nodes"] if item["type"] not in NOTES):
        names = widget_names(node["type"])  # of core nodes those that count, which come first
        values = node["widgets_values"][: len(names)]
        assert set(names[len(values) :]) <= optional_inputs(node["type"])  # added since the graph was saved
        inputs = dict(zip(names[: len(values)], values, strict=True))
        inputs.update({given["name"]: sources[given["link"]] for given in node["inputs"] if given["link"] is not None})
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
    for file in files:
        path = folder / "models" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_the_runner_accepts_them(folders):
    put_models(folders, WEIGHTS)
    found = {name: problems(WORKFLOWS / "api" / f"{name}.json", folders) for name in NAMES}
    assert {name: texts for name, texts in found.items() if texts} == {}


def test_graphs_of_earlier_releases_still_load(folders):
    """Both forms mean what they meant: values saved by place arrive at the inputs they were saved for, and all are valid."""
    put_models(folders, [*WEIGHTS, *OLD_FILES])

    def check(path: Path) -> None:
        then = path.parent / "api" / path.name
        stored = json.loads(then.read_text()).items()
        posted = {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in stored}
        assert as_api(json.loads(path.read_text())) == posted
        assert problems(then, folders) == []

    graphs = {path.relative_to(OLD_GRAPHS).as_posix(): path for path in OLD_GRAPHS.glob("*/*.json")}
    assert graphs and deviations(graphs, check) == {}


def test_missing_weights_are_told_with_their_cure(folders):
    graph = WORKFLOWS / "api" / "vexpress_portrait.json"
    put_models(folders, [])
    model, encoder = problems(graph, folders)
    assert model.startswith('node 1 (SVPLoadModel "Model"): denoising_unet.bin') and "svp download vexpress --" in model
    assert "SVPLoadAudioEncoder" in encoder and "svp download wav2vec2-base-960h" in encoder
    put_models(folders, WEIGHTS[:5])
    model, _ = problems(graph, folders)
    assert "svp download sd-vae-ft-mse --" in model


@for_all(lambda: {name: name for name in NEEDED if name != "vexpress_portrait"})
def test_notes_name_the_downloads_of_their_graphs(name):
    (note,) = [node for node in drawn(name)["nodes"] if node["type"] in NOTES]
    assert f"svp download {' '.join(NEEDED[name])} --models models" in note["widgets_values"][0]


def test_the_note_names_the_downloads_of_its_graph():
    (note,) = [node for node in drawn("vexpress_portrait")["nodes"] if node["type"] in NOTES]
    (text,) = note["widgets_values"]
    assert "svp download vexpress sd-vae-ft-mse wav2vec2-base-960h --models" in text
    assert entry_named("buffalo_l").source in text and entry_named("buffalo_l").folder in text


@for_all(names)
def test_both_forms_are_the_same_graph(name):
    posted = {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in api(name).items()}
    assert as_api(drawn(name)) == posted


@for_all(names)
def test_widget_values_are_complete(name):
    for node in drawn(name)["nodes"]:
        if node["type"] in SCHEMAS:
            assert len(node["widgets_values"]) == len(widget_names(node["type"])), node["type"]


@for_all(names)
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
            types = {item.id: item.get_io_type() for item in SCHEMAS[node["type"]].inputs}
            assert {item["name"]: item["type"] for item in node["inputs"]}.items() <= types.items()
            wanted = [item.get_io_type() for item in SCHEMAS[node["type"]].outputs]
            assert [item["type"] for item in node["outputs"]] == wanted


Box = tuple[float, float, float, float]  # left, top, width, height, with the title bar
Point = tuple[float, float]


def boxes(graph: dict[str, Any]) -> dict[int, Box]:
    found = {}
    for node in graph["nodes"]:
        (left, top), (width, height) = node["pos"], node["size"]
        found[node["id"]] = (left, top - TITLE_BAR, width, height + TITLE_BAR)
    return found


@for_all(names)
def test_nodes_do_not_overlap(name):
    graph = drawn(name)
    titles = {node["id"]: node["title"] for node in graph["nodes"]}
    for (a, (ax, ay, aw, ah)), (b, (bx, by, bw, bh)) in itertools.combinations(boxes(graph).items(), 2):
        apart = ax + aw <= bx or bx + bw <= ax or ay + ah <= by or by + bh <= ay
        assert apart, f"{titles[a]} and {titles[b]}"


@for_all(names)
def test_it_can_be_read_as_it_is_opened(name):
    """The page makes the whole graph fit into its window."""
    lefts, tops, widths, heights = zip(*boxes(drawn(name)).values(), strict=True)
    width = max(map(sum, zip(lefts, widths, strict=True))) - min(lefts) + 2 * AROUND
    height = max(map(sum, zip(tops, heights, strict=True))) - min(tops) + 2 * AROUND
    assert FILLED * min(WINDOW[0] / width, WINDOW[1] / height) >= LEGIBLE.get(name, 0.62)


def test_the_first_template_is_small():
    graph = drawn("talk")
    assert len(graph["nodes"]) <= 8 and len(graph["links"]) <= 11
    assert {node["title"] for node in graph["nodes"] if node["type"] not in NOTES} == {
        "Portrait", "Speech", "Motion generator", "Motion of the voice", "Model", "Sampler", "Video",
    }  # fmt: skip


def socket_at(box: Box, node: dict[str, Any], slot: int) -> Point:
    """The middle of an input in the graph's pixels: sockets are above widgets."""
    given = node["inputs"][slot]
    if "widget" not in given:
        return box[0], box[1] + TITLE_BAR + FIRST_SLOT + SLOT * slot
    sockets = max(sum("widget" not in item for item in node["inputs"]), len(node["outputs"]))
    shown = [name for name in widget_names(node["type"]) if name is not None]
    return box[0], box[1] + TITLE_BAR + SLOT * sockets + ROW * (shown.index(given["name"]) + 0.75)


def curve(start: Point, end: Point) -> list[Point]:
    """Points of a wire, a Bezier curve that leaves and arrives horizontally."""
    reach = math.dist(start, end) / 4
    corners = np.array([start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end])
    t = np.linspace(0, 1, 33)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return [tuple(item) for item in weights @ corners]


def wire(graph: dict[str, Any], link: list[Any], nodes: dict[int, dict[str, Any]]) -> list[Point]:
    """Points of a link: a curve, or straight from dot to dot where it has some."""
    number, source, output, target, slot, _ = link
    places = boxes(graph)
    left, top, width, _ = places[source]
    start = (left + width, top + TITLE_BAR + FIRST_SLOT + SLOT * output)
    end = socket_at(places[target], nodes[target], slot)
    dots = {entry["id"]: entry for entry in graph["extra"].get("reroutes", [])}
    last = {entry["id"]: entry["parentId"] for entry in graph["extra"].get("linkExtensions", [])}.get(number)
    if last is None:
        return curve(start, end)
    path = [end]
    while last is not None:
        assert number in dots[last]["linkIds"]
        path.append(tuple(dots[last]["pos"]))
        last = dots[last].get("parentId")
    path = [*path, start][::-1]
    between = np.linspace(0, 1, 33)[:, None]
    return [tuple(item) for a, b in itertools.pairwise(path) for item in np.array(a) + between * (np.array(b) - a)]


def inside(point: Point, box: Box) -> bool:
    left, top, width, height = box
    return left + 1 < point[0] < left + width - 1 and top + 1 < point[1] < top + height - 1


@for_all(names)
def test_no_wire_runs_behind_a_node_or_a_group(name):
    graph = drawn(name)
    nodes = {node["id"]: node for node in graph["nodes"]}
    groups = [tuple(item["bounding"]) for item in graph["groups"]]
    for link in graph["links"]:
        points = wire(graph, link, nodes)
        crossed = {
            nodes[key]["title"] for key, box in boxes(graph).items() if any(inside(point, box) for point in points)
        }
        assert not crossed, f"{nodes[link[1]]['title']} to {nodes[link[3]]['title']}: behind {sorted(crossed)}"
        assert not any(inside(point, group) for point in points for group in groups)


@for_all(names)
def test_clips_are_decoded_by_the_pack_alone(name):
    """A video goes straight to what reads it: no host's decoder, memory for all its frames, or frame rate comes between."""
    nodes = api(name)
    clips = {key for key, node in nodes.items() if node["class_type"] == "LoadVideo"}
    targets = [
        (node["class_type"], given)
        for node in nodes.values()
        for given, value in node["inputs"].items()
        if isinstance(value, list) and value[0] in clips
    ]
    readers = {
        "SVPStyleExtract": "frames",
        "SVPHeadKpsExtract": "frames",
        "SVPMotionExtract": "frames",
        "SVPAnimate": "portrait",
    }
    assert all(readers[kind] == given for kind, given in targets) and len(targets) == len(clips)
    assert not any("audio" in node["inputs"] for node in nodes.values() if node["class_type"] == "SVPStyleExtract")


@for_all(names)
def test_notes_can_be_read_everywhere(name):
    """Without inline code, which Nodes 2.0 shows in the colour of its ground."""
    (note,) = [node for node in drawn(name)["nodes"] if node["type"] in NOTES]
    assert "`" not in note["widgets_values"][0] and len(note["widgets_values"][0]) > 100


@for_all(names)
def test_the_page_is_given_the_media_that_are_used(name):
    graph = drawn(name)
    used = {
        node["widgets_values"][0] for node in graph["nodes"] if node["type"] in ("LoadImage", "LoadAudio", "LoadVideo")
    }
    assert set(graph["extra"]["svp_media"]) == used <= set(ASSETS)
    assert all((WORKFLOWS / "assets" / item).is_file() for item in used)


@for_all(names)
def test_the_page_is_given_the_weights_that_are_needed(name):
    """For its dialog of missing models: name, address, folder and sum as the catalogue has them."""
    graph = drawn(name)
    listed = {item["name"]: item for node in graph["nodes"] for item in node["properties"].get("models", [])}
    assert list(listed.values()) == graph.get("models", [])
    for entry in map(entry_named, NEEDED.get(name, [])):
        for file in (path for path in entry.files if path.name.endswith(IN_THE_DIALOG)):
            folder, _, below = entry.folder.partition("/")
            given = listed.pop(f"{below}/{file.name}" if below else file.name)
            assert given["directory"] == folder and given.get("hash") == file.sha256
            assert given["url"] == f"{HUB}/{entry.repository}/resolve/main/{file.remote or file.name}"
    assert listed == {}
