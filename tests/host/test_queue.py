"""What a queue does with the pack's nodes in a real host: results that are kept, work that is done again, and cancelling."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL
from svp_portrait.svp_models.media.video import load_video

from .server import ASSETS, Run, Server, speech, talking

PREPARED = ["model", "picture", "speech", "clip", "parts", "few", "motion", "prior"]  # all that no style changes


def made(server: Server) -> set[Path]:
    """Every file below the output and temp folders."""
    folders = (server.base / "output", server.base / "temp")
    return {each for folder in folders for each in folder.rglob("*") if each.is_file()}


def test_the_same_graph_again_does_nothing(server):
    graph = talking(server)
    first = server.run(graph)
    files = made(server)
    again = server.run(graph)
    assert set(first.executed) | set(first.cached) == set(graph)
    assert again.executed == [] and set(again.cached) == set(graph)
    assert made(server) == files and again.files(".mp4") == first.files(".mp4")


def test_another_style_leaves_what_was_prepared(server):
    server.run(talking(server))
    run = server.run(talking(server, style={"seed": 2}))
    assert run.executed == ["style", "sampler", "video"] and set(PREPARED) <= set(run.cached)


def test_another_seed_samples_anew_and_nothing_else(server):
    server.run(talking(server))
    run = server.run(talking(server, sampler={"seed": 5}))
    assert run.executed == ["sampler", "video"]


def test_a_changed_file_is_read_again(server):
    copies = {"picture": "changing.png", "speech": "changing.wav", "clip": "changing.mp4"}
    originals = {"picture": "portrait.png", "speech": "speech_10.wav", "clip": "style_happy.mp4"}
    folder = server.base / "input"
    graph = talking(
        server, picture={"image": "changing.png"}, speech={"audio": "changing.wav"}, clip={"file": "changing.mp4"}
    )
    for node, copy in copies.items():
        shutil.copyfile(folder / originals[node], folder / copy)
    server.run(graph)
    assert server.run(graph).executed == []
    with Image.open(folder / "portrait.png") as picture:
        ImageOps.mirror(picture).save(folder / "changing.png")
    assert set(server.run(graph).executed) == {"picture", "sampler", "video"}
    shutil.copyfile(folder / speech(server, 5), folder / "changing.wav")
    assert set(server.run(graph).executed) == {"speech", "sampler", "video"}
    shutil.copyfile(ASSETS / "style_sad.mp4", folder / "changing.mp4")
    later(folder / "changing.mp4")
    assert set(server.run(graph).executed) == set(graph) - {"model", "picture", "speech"}


def test_changed_models_and_styles_are_read_again(server):
    models, styles = server.base / "models/svp", server.base / "models/svp_styles"
    models.mkdir(parents=True, exist_ok=True)
    styles.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(BUILTIN_MODEL, models / "changing.safetensors")
    saving = talking(server)
    del saving["style"], saving["sampler"], saving["video"]
    saving["save"] = {
        "class_type": "SVPStyleSave",
        "inputs": {"style_prior": ["prior", 0], "filename_prefix": "svp_styles/a"},
    }
    server.run(saving)
    (saved,) = (server.base / "output/svp_styles").glob("a_*.safetensors")
    shutil.copyfile(saved, styles / "changing.safetensors")
    graph = talking(server, model={"model": "changing.safetensors"})
    graph["prior"] = {"class_type": "SVPStyleLoad", "inputs": {"style": "changing.safetensors"}}
    server.run(graph)
    assert server.run(graph).executed == []
    later(styles / "changing.safetensors")
    assert server.run(graph).executed == ["prior", "style", "sampler", "video"]
    later(models / "changing.safetensors")
    assert {"model", "motion", "sampler", "video"} <= set(server.run(graph).executed)


def later(path: Path) -> None:
    """As if the file were written again some seconds later."""
    os.utime(path, (path.stat().st_atime, path.stat().st_mtime + 10))


def test_two_queued_runs_make_two_videos(server):
    """The second waits in the queue while the first runs; nothing of one is overwritten or mixed up by the other."""
    queued = [server.post("/prompt", {"prompt": talking(server, sampler={"seed": seed})}) for seed in (21, 22)]
    entries = [server.entry(each["prompt_id"]) for each in queued]
    assert [entry["status"]["status_str"] for entry in entries] == ["success", "success"]
    shown = [entry["outputs"]["video"]["images"][0] for entry in entries]
    files = [server.base / "output" / each["subfolder"] / each["filename"] for each in shown]
    first, second = (load_video(file).frames.astype(int) for file in files)
    assert files[0] != files[1] and first.shape == second.shape == (10, 128, 128, 3)
    assert abs(first - second).max() > 2  # another seed, another clip


def test_a_job_is_cancelled_by_its_number(server):
    """The newer hosts' interface cancels a job by its id, be it running or still waiting."""
    if not server.takes("/api/jobs/none/cancel"):
        pytest.skip("this host cancels no jobs by their ids")
    long = talking(server, frames=100, sampler={"steps": 40, "seed": 31})
    running, waiting = (server.post("/prompt", {"prompt": long}) for _ in range(2))
    for job in (waiting, running):
        server.post(f"/api/jobs/{job['prompt_id']}/cancel", {})
    entry = server.entry(running["prompt_id"])
    assert "execution_interrupted" in str(entry["status"])
    assert server.get(f"/history/{waiting['prompt_id']}") == {}
    server.run(talking(server, sampler={"seed": 32}))


@pytest.mark.parametrize("node", ["motion", "prior", "sampler", "video"])
def test_a_run_is_cancelled_half_way(server, node, record_property):
    graph = talking(server, frames=100, sampler={"steps": 40})
    graph["few"]["inputs"]["length"] = 100
    if node == "video":
        graph["many"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["few", 0], "amount": 20}}
        graph["video"]["inputs"] |= {"images": ["many", 0], "fps": 25.0}
        del graph["video"]["inputs"]["latent"], graph["sampler"]
    else:
        graph["look"] = {"class_type": "PreviewAny", "inputs": {"source": [node, 0]}}
    server.forget()
    files, sent = made(server), []

    def cancel(run: Run, kind: str, data: dict) -> None:
        if kind == "progress" and data["node"] == node and not sent and 0 < data["value"] < data["max"]:
            sent.append(len(run.progress[node]))
            server.interrupt()

    run = server.follow(graph, cancel)
    assert run.ending == "execution_interrupted" and run.message["node_id"] == node
    assert sent and run.progress[node][-1][0] < run.progress[node][-1][1]
    record_property("updates_after_cancel", len(run.progress[node]) - sent[0])
    assert {each for each in made(server) - files if each.suffix != ".png"} == set()
    server.run(talking(server, sampler={"seed": 11}))


def test_nodes_stay_when_the_folder_of_their_models_is_removed(server):
    loaders = {"SVPLoadLivePortrait": "liveportrait", "SVPLoadMotionGenerator": "joyvasa"}
    folders = [server.base / "models" / kind for kind in loaders.values()]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    assert loaders.keys() <= server.get("/object_info").keys()
    elsewhere = [
        folder.rename(server.base / f"{folder.name}.away") for folder in folders
    ]  # others' files may lie there
    try:
        assert loaders.keys() <= server.get("/object_info").keys()
    finally:
        for folder, away in zip(folders, elsewhere, strict=True):
            away.rename(folder)
