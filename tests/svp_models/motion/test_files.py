from __future__ import annotations

import os
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.files import load_motion, load_template, save_motion
from svp_portrait.svp_models.motion.keypoints import keypoints, keypoints_of_motion, rotation_matrices

from .motions import PARTS, differing, random_motion


def template(frames: int = 4, **changes) -> dict:
    """A template as LivePortrait writes them, with the angles it was made of."""
    rng = np.random.default_rng(1)
    angles = torch.from_numpy(rng.uniform(-40, 40, (3, frames)))  # pitch, yaw, roll of LivePortrait
    matrices = rotation_matrices(*angles).numpy().astype(np.float32)
    kp = rng.normal(size=(1, 21, 3)).astype(np.float32)
    items = [
        {
            "scale": rng.uniform(1, 2, (1, 1)).astype(np.float32),
            "R": matrices[index : index + 1],
            "exp": rng.normal(size=(1, 21, 3)).astype(np.float32),
            "t": rng.normal(size=(1, 3)).astype(np.float32),
            "kp": kp,
            "x_s": rng.normal(size=(1, 21, 3)).astype(np.float32),
        }
        for index in range(frames)
    ]
    ratios = [np.zeros((1, 2), np.float32)] * frames
    content = {"n_frames": frames, "output_fps": 30, "motion": items, "c_eyes_lst": ratios, "c_lip_lst": ratios}
    return {**content, **changes}


def written(tmp_path, content) -> str:
    path = tmp_path / "d0.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize("space", ["svp", "liveportrait"])
def test_a_saved_motion_comes_back_to_the_bit(tmp_path, space):
    motion = random_motion(space=space)
    save_motion(tmp_path / "m.safetensors", motion)
    found = load_motion(tmp_path / "m.safetensors")
    assert (found.space, found.fps) == (space, 29.97)
    for name in PARTS:
        given, read = getattr(motion, name), getattr(found, name)
        assert (given is None) == (read is None) and (given is None or torch.equal(given, read)), name
    header = read_metadata(tmp_path / "m.safetensors")
    assert (header["kind"], header["space"], header["format_version"]) == ("motion", space, "1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors, header: tensors.pop("scale"), "scale is missing"),
        (lambda tensors, header: tensors.update(extra=torch.ones(1)), "extra is unexpected"),
        (lambda tensors, header: tensors.update(shift=torch.ones(4, 2)), "shift of a motion has shape (4, 2), (5, 2)"),
        (lambda tensors, header: tensors["angles"].fill_(torch.nan), "angles has 15 of 15 values that are not finite"),
        (lambda tensors, header: header.update(fps="fast"), "its frame rate is fast, a number above 0"),
        (lambda tensors, header: header.update(space="other"), "the space of a motion is liveportrait or svp"),
        (lambda tensors, header: header.update(kind="style"), "holds a style, a motion is needed"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, change, message):
    path = tmp_path / "m.safetensors"
    save_motion(path, random_motion())
    tensors, header = load_file(path), read_metadata(path)
    change(tensors, header)
    save_file(tensors, path, metadata=header)
    with pytest.raises(PortraitError, match=re.escape(message)) as error:
        load_motion(path)
    assert str(error.value).startswith(str(path))


def test_a_template_gives_its_rotations_and_points_again(tmp_path):
    content = template()
    motion = load_motion(written(tmp_path, content))
    assert (len(motion), motion.fps, motion.space) == (4, 30.0, "liveportrait")
    numbers = keypoints_of_motion(motion)
    stored = {name: torch.from_numpy(np.concatenate([frame[name] for frame in content["motion"]])) for name in
              ("R", "exp", "t", "scale", "kp")}  # fmt: skip
    torch.testing.assert_close(numbers.rotation, stored["R"], rtol=0, atol=1e-6)
    assert torch.equal(numbers.exp, stored["exp"]) and torch.equal(numbers.scale, stored["scale"][:, 0])
    wanted = stored["scale"][:, None] * (stored["kp"] @ stored["R"] + stored["exp"])
    wanted[..., :2] += stored["t"][:, None, :2]
    torch.testing.assert_close(keypoints(numbers), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("degrees", [0.0, 1e-4, 60.0, 89.0])
def test_the_angles_of_a_template_are_exact_in_every_direction(tmp_path, degrees):
    for axis in range(3):
        angles = torch.zeros(3, 1, dtype=torch.float64)
        angles[axis] = degrees
        content = template(1)
        content["motion"][0]["R"] = rotation_matrices(*angles).numpy()
        motion = load_template(written(tmp_path, content))
        assert motion.angles[0, 1] == pytest.approx(float(angles[0]), abs=1e-5)  # pitch
        assert motion.angles[0, 0] == pytest.approx(-float(angles[1]), abs=1e-5)  # LivePortrait's yaw is to the left
        torch.testing.assert_close(
            keypoints_of_motion(motion).rotation.double(), rotation_matrices(*angles), rtol=0, atol=1e-6
        )


def test_older_templates_and_those_without_a_face_are_read(tmp_path):
    content = template()
    for frame in content["motion"]:
        frame["R_d"] = frame.pop("R")
        del frame["kp"], frame["x_s"]
    del content["output_fps"], content["n_frames"]
    motion = load_template(written(tmp_path, content))
    assert motion.face is None and motion.fps == 25.0
    assert torch.equal(motion.angles, load_template(written(tmp_path, template())).angles)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(n_frames=7), "it holds 4 frames and says 7"),
        (lambda content: content.update(motion=[]), "it has no list 'motion' with frames"),
        (lambda content: content["motion"][2].pop("t"), "frame 2 has no t"),
        (lambda content: content["motion"][1].update(exp=np.ones(60)), "exp of frame 1 has 60 numbers, 63 finite ones"),
        (lambda content: content["motion"][3].update(R=np.ones((3, 3))), "R of frame 3 is no rotation"),
        (lambda content: content["motion"][0].update(scale="big"), "scale of frame 0 holds no numbers"),
    ],
)
def test_a_wrong_template_is_named_with_what_is_wrong(tmp_path, change, message):
    content = template()
    change(content)
    path = written(tmp_path, content)
    with pytest.raises(PortraitError, match=re.escape(message)) as error:
        load_template(path)
    assert str(error.value).startswith(str(path))


def test_code_in_a_template_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    with pytest.raises(PortraitError, match="code in files is never run"):
        load_motion(written(tmp_path, {**template(), "motion": [Evil()]}))
    assert not (tmp_path / "run").exists()


def test_a_template_saved_as_a_motion_is_the_same(tmp_path):
    motion = load_template(written(tmp_path, template()))
    save_motion(tmp_path / "m.safetensors", motion)
    found = load_motion(tmp_path / "m.safetensors")
    assert replace(found, **{name: None for name in ("lids", "gaze")}).fps == 30.0
    assert all(
        torch.equal(getattr(found, name), getattr(motion, name)) for name in PARTS if name not in ("lids", "gaze")
    )


@pytest.mark.parametrize("space", ["svp", "liveportrait"])
def test_the_frame_to_compare_with_is_kept(tmp_path, space):
    motion = replace(random_motion(space=space), reference=random_motion(1, space, seed=3))
    save_motion(tmp_path / "m.safetensors", motion)
    found = load_motion(tmp_path / "m.safetensors")
    assert len(found.reference) == 1 and differing(found.reference, motion.reference) == set()
    with pytest.raises(PortraitError, match="the reference of a motion has 2 frames of"):
        replace(motion, reference=random_motion(2, space))
