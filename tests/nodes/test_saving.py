"""Saved videos: named for themselves, playable, with the graph inside, never of numbers that are not finite."""

from __future__ import annotations

import json
import os
import threading
from types import SimpleNamespace

import av
import pytest
import torch
from PIL import Image

from svp_portrait.nodes import host
from svp_portrait.nodes.command import open_nodes
from svp_portrait.nodes.host import folder_paths
from svp_portrait.nodes.loaders import SVPSaveStyleLayer
from svp_portrait.nodes.style import SVPStyleSave
from svp_portrait.nodes.video import SVPVideoCombine
from svp_portrait.svp_models.cli.folders import Folders
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.errors import PortraitError

COMBINE = {"fps": 25.0, "crf": 18, "filename_prefix": "svp/clip"}


def stored(path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def profile(path) -> str:
    with av.open(str(path)) as container:
        frames = len(list(container.decode(video=0)))
        assert frames == container.streams.video[0].frames
        return container.streams.video[0].codec_context.profile


@pytest.mark.parametrize("crf", [0, 1, 51])
def test_every_quality_plays(folders, crf):
    images = torch.rand(3, 33, 47, 3, generator=torch.Generator().manual_seed(0))
    SVPVideoCombine.execute(**{**COMBINE, "crf": crf}, images=images)
    assert profile(folders / "output" / "svp" / "clip_00001_.mp4") == "High"


def test_graph_and_workflow_are_stored_as_the_host_does(folders):
    prompt, workflow = {"1": {"class_type": "SVPVideoCombine", "inputs": {"text": "ä"}}}, {"nodes": [], "version": 0.4}
    hidden = SimpleNamespace(prompt=prompt, extra_pnginfo={"workflow": workflow})
    running = type("SVPVideoCombine", (SVPVideoCombine,), {"hidden": hidden})  # as the host makes it for a run
    running.execute(**COMBINE, images=torch.zeros(2, 32, 32, 3))
    found = stored(folders / "output" / "svp" / "clip_00001_.mp4")
    assert json.loads(found["prompt"]) == prompt and json.loads(found["workflow"]) == workflow
    assert host.graph_metadata(None) == {}
    assert host.graph_metadata(SimpleNamespace(prompt=None, extra_pnginfo=None)) == {}


def test_the_video_of_a_run_runs_again(folders, monkeypatch, capsys):
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "p.png"}},
        "2": {"class_type": "SVPVideoCombine", "inputs": {**COMBINE, "images": ["1", 0]}, "_meta": {"title": "Video"}},
    }
    (folders / "graph.json").write_text(json.dumps(graph))
    Image.new("RGB", (32, 32), (200, 10, 10)).save(folders / "input" / "p.png")
    monkeypatch.chdir(folders)
    assert main(open_nodes, ["run", "graph.json", "--set", "Video.crf=30"]) == 0
    first = folders / "output" / "svp" / "clip_00001_.mp4"
    graph["2"]["inputs"]["crf"] = 30
    assert json.loads(stored(first)["prompt"]) == graph
    assert main(open_nodes, ["run", str(first), "--set", "Video.filename_prefix=again"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(first), str(folders / "output" / "again_00001_.mp4")]
    graph["2"]["inputs"]["filename_prefix"] = "again"
    assert json.loads(stored(folders / "output" / "again_00001_.mp4")["prompt"]) == graph


def test_the_temp_folder_of_a_run_is_its_own(folders, tmp_path):
    runs = Folders(tmp_path / "in", tmp_path / "out", tmp_path / "own")
    open_nodes(runs, lambda done, total: None)
    assert folder_paths.get_temp_directory() == str(tmp_path / "own") and not (tmp_path / "own").exists()


def test_threads_write_videos_of_their_own(folders):
    def work(level: float) -> None:
        SVPVideoCombine.execute(**COMBINE, images=torch.full((2, 32, 32, 3), level))

    threads = [threading.Thread(target=work, args=(index / 8,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted(os.listdir(folders / "output" / "svp"))
    assert names == [f"clip_{number:05}_.mp4" for number in range(1, 9)]
    assert len({(folders / "output" / "svp" / name).read_bytes() for name in names}) == 8


class Vae:
    latent_channels = 4

    def decode(self, samples):
        return samples[:, :3].movedim(1, -1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_latents_that_are_no_picture_are_refused(folders, value):
    samples = torch.zeros(40, 4, 8, 8)
    samples[37, 1, 2, 3] = value
    with pytest.raises(PortraitError, match="the latents of frame 37 hold"):
        SVPVideoCombine.execute(**COMBINE, latent={"samples": samples}, vae=Vae())
    assert os.listdir(folders / "output" / "svp") == []


def test_pictures_that_are_not_finite_are_refused(folders):
    images = torch.zeros(40, 8, 8, 3)
    images[20, 1, 2, 0] = float("nan")
    with pytest.raises(PortraitError, match="frame 20 of the images holds numbers that are not finite"):
        SVPVideoCombine.execute(**COMBINE, images=images)
    assert os.listdir(folders / "output" / "svp") == []

    class Broken(Vae):
        def decode(self, samples):
            return super().decode(samples) / 0

    with pytest.raises(PortraitError, match="frame 0 of the images holds numbers that are not finite"):
        SVPVideoCombine.execute(**COMBINE, latent={"samples": torch.zeros(4, 4, 8, 8)}, vae=Broken())


@pytest.mark.parametrize("node", [SVPVideoCombine, SVPStyleSave, SVPSaveStyleLayer])
def test_where_files_go_is_checked_before_the_run(folders, node):
    assert node.validate_inputs(filename_prefix="a/b") is True
    assert node.validate_inputs(filename_prefix=None) is True
    assert "is empty" in node.validate_inputs(filename_prefix="")
    assert "holds the character" in node.validate_inputs(filename_prefix="a\0b")
    assert "bytes, at most" in node.validate_inputs(filename_prefix="x" * 260)
    assert "leads outside the output folder" in node.validate_inputs(filename_prefix="../x")
    (folders / "output" / "taken").touch()
    assert "taken is a file" in node.validate_inputs(filename_prefix="taken/x")
