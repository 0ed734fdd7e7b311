"""The pack's nodes between nodes of others in a real host: what they take, what they give, and what they say when it does not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.media.writer import VideoWriter

from .server import Server, running, talking

FRAMES = 5


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def combine(**inputs: Any) -> dict[str, Any]:
    return node("SVPVideoCombine", **{"fps": 25.0, "crf": 18, "filename_prefix": "svp/neighbour"} | inputs)


def scale(image: str, width: int, height: int) -> dict[str, Any]:
    return node("ImageScale", image=[image, 0], upscale_method="bilinear", width=width, height=height, crop="disabled")


def without(nodes: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: each for key, each in nodes.items() if key not in names}


def result(server: Server, nodes: dict[str, Any], of: str) -> tuple[int, int, int, float]:
    """Runs a graph: frames, width, height and frame rate of the film that the node `of` has saved."""
    run = server.run(nodes)
    (shown,) = run.entry["outputs"][of]["images"]
    film = load_video(server.base / "output" / shown["subfolder"] / shown["filename"])
    return len(film), film.frames.shape[2], film.frames.shape[1], film.fps


def failure(server: Server, nodes: dict[str, Any], at: str) -> str:
    """Runs a graph that has to fail at that node: what the interface shows."""
    run = server.follow(nodes)
    assert run.ending == "execution_error" and run.message["node_id"] == at, run.message or run.ending
    return run.error


def tiny_upscaler(path: Path) -> None:
    """An upscaler in the layout of RealESRGAN Compact that adds nothing to the picture twice as large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"body.0": (4, 3, 3, 3), "body.1": (4,), "body.2": (4, 4, 3, 3), "body.3": (4,), "body.4": (12, 4, 3, 3)}
    tensors = {f"{name}.weight": torch.zeros(size) for name, size in sizes.items()}
    tensors |= {f"{name}.bias": torch.zeros(size[0]) for name, size in sizes.items() if len(size) > 1}
    save_file(tensors, path)


def test_nodes_for_pictures_and_films_behind_ours(server):
    tiny_upscaler(server.base / "models/upscale_models/tiny.safetensors")
    nodes = talking(server, frames=FRAMES) | {
        "pictures": node("VAEDecode", samples=["sampler", 0], vae=["model", 1]),
        "odd": scale("pictures", 101, 75),
        "upscaler": node("UpscaleModelLoader", model_name="tiny.safetensors"),
        "larger": node("ImageUpscaleWithModel", upscale_model=["upscaler", 0], image=["odd", 0]),
        "three": node("ImageFromBatch", image=["larger", 0], batch_index=1, length=3),
        "six": node("RepeatImageBatch", image=["three", 0], amount=2),
        "seven": node("ImageBatch", image1=["six", 0], image2=["odd", 0]),
        "steady": node("SVPMedianFilter", images=["seven", 0]),
        "film": combine(images=["steady", 0], audio=["speech", 0]),
        "parts": node("GetVideoComponents", video=["film", 0]),
        "again": node("CreateVideo", images=["parts", 0], audio=["parts", 1], fps=["parts", 2]),
        "saved": node("SaveVideo", video=["again", 0], filename_prefix="video/again", format="mp4", codec="h264"),
        "straight": node(
            "SaveVideo", video=["video", 0], filename_prefix="video/straight", format="auto", codec="auto"
        ),
        "clip": node("LoadVideo", file="style_happy.mp4"),
        "clip_parts": node("GetVideoComponents", video=["clip", 0]),
    }
    nodes["few"]["inputs"]["image"] = ["clip_parts", 0]
    for each in ("motion", "prior"):
        nodes[each]["inputs"]["fps"] = ["clip_parts", 2]
    frames, width, height, fps = result(server, nodes, "saved")
    assert (frames, width, height, fps) == (6 + FRAMES, 202, 150, 25.0)
    assert result(server, nodes, "straight") == (FRAMES, 128, 128, 25.0)


def test_pictures_with_alpha_of_odd_sizes_and_in_batches_before_ours(server):
    nodes = talking(server, frames=FRAMES) | {
        "odd": scale("picture", 211, 301),
        "two": node("ImageBatch", image1=["odd", 0], image2=["odd", 0]),
        "mask": node("SolidMask", value=0.5, width=211, height=301),
        "alpha": node("JoinImageWithAlpha", image=["two", 0], alpha=["mask", 0]),
        "odd_few": scale("few", 173, 199),
        "few_mask": node("SolidMask", value=1.0, width=173, height=199),
        "few_alpha": node("JoinImageWithAlpha", image=["odd_few", 0], alpha=["few_mask", 0]),
        "fitted": node(
            "SVPHeadKpsRetarget", head_motion=["motion", 0], portrait=["alpha", 0], mode="offset", model=["model", 0]
        ),
        "drawn": node("SVPHeadKpsRender", head_motion=["fitted", 0], width=64, height=64, frames=FRAMES),
        "drawn_alpha": node("JoinImageWithAlpha", image=["drawn", 0], alpha=["few_mask", 0]),
    }
    nodes["sampler"]["inputs"] |= {"portrait": ["alpha", 0], "head_motion": ["fitted", 0]}
    for each in ("motion", "prior"):
        nodes[each]["inputs"]["frames"] = ["few_alpha", 0]
    nodes["drawn_film"] = combine(images=["drawn_alpha", 0])
    assert result(server, nodes, "video")[:3] == (FRAMES, 128, 128)
    nodes["sampler"]["inputs"]["head_motion"] = ["drawn_alpha", 0]
    assert result(server, nodes, "video")[:3] == (FRAMES, 128, 128)


def test_masks_as_pictures(server):
    mask = {"mask": node("SolidMask", value=0.5, width=99, height=65)}
    mask["picture"] = node("MaskToImage", mask=["mask", 0])
    nodes = without(talking(server, frames=FRAMES), "picture") | mask
    assert result(server, nodes, "video")[:3] == (FRAMES, 128, 128)
    nodes["motion"]["inputs"]["frames"] = ["picture", 0]
    assert "no face found in the driving clip" in failure(server, nodes, "motion")
    nodes["sampler"]["inputs"]["portrait"] = ["mask", 0]
    assert "MASK" in str(server.refusal(nodes)["sampler"])


def test_nodes_for_latents(server):
    nodes = talking(server, frames=FRAMES) | {
        "two": node("LatentFromBatch", samples=["sampler", 0], batch_index=3, length=2),
        "six": node("RepeatLatentBatch", samples=["two", 0], amount=3),
        "larger": node(
            "LatentUpscale", samples=["six", 0], upscale_method="bilinear", width=136, height=152, crop="disabled"
        ),
        "put": node("LatentComposite", samples_to=["larger", 0], samples_from=["six", 0], x=8, y=16, feather=0),
        "batch": node("LatentBatch", samples1=["put", 0], samples2=["sampler", 0]),
        "file": node("SaveLatent", samples=["batch", 0], filename_prefix="latents/clip"),
        "tiled": node(
            "VAEDecodeTiled",
            samples=["batch", 0],
            vae=["model", 1],
            tile_size=64,
            overlap=16,
            temporal_size=64,
            temporal_overlap=8,
        ),
        "tiled_film": combine(images=["tiled", 0]),
    }
    nodes["video"]["inputs"]["latent"] = ["batch", 0]
    frames, width, height, _ = result(server, nodes, "video")
    assert (frames, width, height) == (6 + FRAMES, 136, 152)
    (saved,) = (server.base / "output/latents").glob("*.latent")
    (server.base / "input/clip.latent").write_bytes(saved.read_bytes())
    loaded = {"latent": node("LoadLatent", latent="clip.latent"), "model": nodes["model"]}
    again = result(server, loaded | {"video": combine(latent=["latent", 0], vae=["model", 1])}, "video")
    assert again[:3] == (frames, width, height)


def test_latents_of_other_models_are_told(server):
    nodes = talking(server, frames=FRAMES)
    for kind in ("EmptyLatentImage", "EmptyHunyuanLatentVideo"):
        length = {"length": 5} if "Video" in kind else {}
        other = {
            "model": nodes["model"],
            "latent": node(kind, width=128, height=128, batch_size=1, **length),
            "video": combine(latent=["latent", 0], vae=["model", 1]),
        }
        message = failure(server, other, "video")
        assert "the latent has shape (1, " in message and "channels" in message, message
    pixels = nodes | {"vae": node("VAELoader", vae_name="pixel_space")}
    pixels["sampler"]["inputs"]["vae"] = ["vae", 0]
    assert "the portrait's latent has shape" in failure(server, pixels, "sampler")


def test_nodes_for_sound(server):
    nodes = talking(server, frames=20) | {
        "trimmed": node("TrimAudioDuration", audio=["speech", 0], start_index=0.2, duration=0.4),
        "louder": node("AudioAdjustVolume", audio=["trimmed", 0], volume=3),
        "silence": node("EmptyAudio", duration=0.2, sample_rate=44100, channels=2),
        "longer": node("AudioConcat", audio1=["louder", 0], audio2=["silence", 0], direction="after"),
        "saved": node("SaveAudio", audio=["longer", 0], filename_prefix="audio/longer"),
    }
    for each in ("sampler", "video"):
        nodes[each]["inputs"]["audio"] = ["longer", 0]
    assert result(server, nodes, "video")[0] == 15


def test_a_video_without_audio(server):
    with VideoWriter(server.base / "input/silent.mp4", 64, 64, 25.0) as writer:
        writer.write(np.full((5, 64, 64, 3), 128, np.uint8))
    film = {
        "film": node("LoadVideo", file="silent.mp4"),
        "parts": node("GetVideoComponents", video=["film", 0]),
        "video": combine(images=["parts", 0], audio=["parts", 1], fps=["parts", 2]),
    }
    assert result(server, film, "video") == (5, 64, 64, 25.0)
    nodes = talking(server, frames=FRAMES) | {
        "film": film["film"],
        "film_parts": node("GetVideoComponents", video=["film", 0]),
    }
    nodes["sampler"]["inputs"]["audio"] = ["film_parts", 1]
    message = failure(server, nodes, "sampler")
    assert "no audio" in message, message


def test_numbers_and_words_of_primitive_nodes(server):
    nodes = talking(server, frames=FRAMES) | {
        "seed": node("PrimitiveInt", value=7),
        "cfg": node("PrimitiveFloat", value=1.0),
        "name": node("PrimitiveString", value="svp/linked"),
        "outside": node("PrimitiveString", value="../../linked"),
    }
    nodes["sampler"]["inputs"] |= {"seed": ["seed", 0], "steps": 1, "cfg": ["cfg", 0]}
    nodes["video"]["inputs"]["filename_prefix"] = ["name", 0]
    assert result(server, nodes, "video")[0] == FRAMES
    assert [*(server.base / "output/svp").glob("linked_*.mp4")]
    nodes["video"]["inputs"]["filename_prefix"] = ["outside", 0]
    assert "outside" in failure(server, nodes, "video")
    assert len([*server.base.parent.rglob("linked*.mp4")]) == 1


def test_video_helper_suite(host, tmp_path):
    folder = os.environ.get("SVP_VHS_PATH")
    if not folder:
        pytest.skip("SVP_VHS_PATH names no folder of ComfyUI-VideoHelperSuite")
    loader = {"force_rate": 0, "custom_width": 0, "custom_height": 0, "frame_load_cap": 8, "skip_first_frames": 0}
    combiner = {"loop_count": 0, "pingpong": False, "save_output": True, "format": "video/h264-mp4"}
    combiner |= {"pix_fmt": "yuv420p", "crf": 19, "save_metadata": False, "trim_to_audio": False}
    with running(host, tmp_path / "base", packs=(Path(folder).resolve(),)) as server:
        nodes = without(talking(server, frames=FRAMES), "clip", "parts", "few") | {
            "clip": node("VHS_LoadVideo", video="driving.mp4", select_every_nth=1, **loader),
            "info": node("VHS_VideoInfo", video_info=["clip", 3]),
            "pictures": node("VAEDecode", samples=["sampler", 0], vae=["model", 1]),
        }
        for each in ("motion", "prior"):
            nodes[each]["inputs"] |= {"frames": ["clip", 0], "fps": ["info", 0]}
        nodes["prior"]["inputs"]["audio"] = ["clip", 2]
        nodes["out"] = node(
            "VHS_VideoCombine",
            images=["pictures", 0],
            audio=["speech", 0],
            frame_rate=["sampler", 1],
            filename_prefix="vhs",
            **combiner,
        )
        nodes["latents_out"] = node(
            "VHS_VideoCombine",
            images=["sampler", 0],
            vae=["model", 1],
            frame_rate=["sampler", 1],
            filename_prefix="vhsl",
            **combiner,
        )
        server.run(nodes)
        for name in ("vhs_00001-audio.mp4", "vhsl_00001.mp4"):
            with av.open(str(server.base / "output" / name)) as film:
                assert sum(1 for _ in film.decode(video=0)) == FRAMES and film.streams.video[0].average_rate == 25
