"""Load LivePortrait, Extract Motion and Animate Portrait in real hosts, with the small reference networks."""

from __future__ import annotations

import torch

from svp_portrait.svp_models.media.video import load_video

from ..reference.weights import liveportrait_weights


def test_a_picture_is_moved_by_a_clip(server, tmp_path):
    folder = server.base / "models" / "liveportrait" / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in liveportrait_weights().items():
        torch.save(content, folder / f"{file}.pth")
    nodes = {
        "liveportrait": ("SVPLoadLivePortrait", {"liveportrait": "reference/"}),
        "picture": ("LoadImage", {"image": "portrait.png"}),
        "clip": ("LoadVideo", {"file": "style_happy.mp4"}),
        "parts": ("GetVideoComponents", {"video": ["clip", 0]}),
        "few": ("ImageFromBatch", {"image": ["parts", 0], "batch_index": 0, "length": 3}),
        "motion": (
            "SVPMotionExtract",
            {"frames": ["few", 0], "fps": ["parts", 2], "crop": "whole image", "liveportrait": ["liveportrait", 0]},
        ),
        "moved": (
            "SVPAnimate",
            {
                "liveportrait": ["liveportrait", 0], "portrait": ["picture", 0], "motion": ["motion", 0], "region": "all",
                "mode": "relative", "framing": "paste back", "stitching": True, "normalize_lips": False, "feather": 0.1,
            },
        ),
        "video": (
            "SVPVideoCombine",
            {"fps": ["moved", 1], "crf": 18, "filename_prefix": "svp/moved", "images": ["moved", 0], "audio": ["parts", 1]},
        ),
    }  # fmt: skip
    run = server.run({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()})
    (file,) = run.files(".mp4")
    fetched = tmp_path / file.name
    fetched.write_bytes(server.fetch(file))
    film = load_video(fetched)
    assert len(film.frames) == 3 and film.fps == 25
    assert run.progress["moved"][-1][0] == run.progress["moved"][-1][1] and run.progress["motion"]
    known = set(
        server.get("/object_info/SVPLoadLivePortrait")["SVPLoadLivePortrait"]["input"]["required"]["liveportrait"][1][
            "options"
        ]
    )
    assert "reference/" in known
