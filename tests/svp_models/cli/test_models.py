from __future__ import annotations

import json

from svp_portrait.svp_models.checkpoints.model_zoo import ZOO
from svp_portrait.svp_models.cli.main import main


def models(*arguments):
    return main(lambda folders, progress: [], ["models", *arguments])


def test_present_files_come_first_and_missing_ones_say_what_they_enable(tmp_path, capsys):
    folder = tmp_path / "animatediff_models"
    folder.mkdir()
    (folder / "mm_sd_v15_v2.ckpt").write_bytes(b"short")
    assert models("--models", str(tmp_path), "--models", str(tmp_path / "none")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("present  animatediff-v2: temporal layers, with one for the mid block")
    assert (
        lines[1].strip()
        == f"{folder / 'mm_sd_v15_v2.ckpt'}  5 bytes, the published file has 1,817,888,431: another version?"
    )
    text = "\n".join(lines)
    assert sum(line.startswith("missing  ") for line in lines) == len(ZOO) - 1
    assert "missing  sd15: the start of a training at full size" in text
    assert "models/checkpoints/v1-5-pruned-emaonly.safetensors  4.27 GB  missing" in text
    assert "licence: CreativeML OpenRAIL-M; svp download sd15, or https://huggingface.co/" in text
    assert "licence: non-commercial research only; https://github.com/deepinsight" in text


def test_json(tmp_path, capsys):
    assert models("--models", str(tmp_path), "--json") == 0
    described = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert len(described) == len(ZOO) and not described["vexpress"]["present"]
    assert [file["name"] for file in described["vexpress"]["files"]][:2] == ["denoising_unet.bin", "motion_module.bin"]
    assert described["vexpress"]["files"][0]["bytes"] is None and not described["mediapipe"]["downloads"]


def test_hashes_that_nobody_has_published_are_told(tmp_path, capsys):
    assert models("--models", str(tmp_path)) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if "SHA-256 not published" in line]
    unknown = [file.name for entry in ZOO for file in entry.files if file.sha256 is None]
    assert len(lines) == len(unknown) == 18 and all(name in line for name, line in zip(unknown, lines, strict=True))
