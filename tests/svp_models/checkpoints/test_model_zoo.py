"""The model zoo: one table, one way to find a file, one error that says what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from svp_portrait.svp_models.checkpoints.model_zoo import (
    ENTRIES,
    ZOO,
    entry_named,
    locate,
    missing_file_error,
    size_text,
)
from svp_portrait.svp_models.checkpoints.vexpress import FILES
from svp_portrait.svp_models.errors import PortraitError


def test_the_table_is_consistent():
    assert len(ENTRIES) == len(ZOO)
    places = [(entry.folder, file.name) for entry in ZOO for file in entry.files]
    assert len(set(places)) == len(places)
    for entry in ZOO:
        assert entry.enables and entry.files and entry.source.startswith("https://")
        for file in entry.files:
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.bytes is None or file.bytes > 0


def test_single_files_and_folders_are_found_in_the_order_of_the_roots(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    file = "v1-5-pruned-emaonly.safetensors"
    assert locate("sd15", [one, two]) is None
    for root in (two / "checkpoints", one):
        root.mkdir(parents=True)
        (root / file).touch()
    assert locate("sd15", [one, two]) == one / file
    assert locate("sd15", [two, one]) == two / "checkpoints" / file
    folder = two / "audio_encoders/whisper-tiny"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).touch()
    assert locate("whisper-tiny", [one, two]) is None
    (folder / "preprocessor_config.json").touch()
    assert locate("whisper-tiny", [one, two]) == folder


def test_what_is_missing_comes_with_the_cure(tmp_path):
    text = str(missing_file_error("animatediff-v3", [tmp_path]))
    for part in ("v3_sd15_mm.ckpt", str(tmp_path), "svp download animatediff-v3", "https://huggingface.co/guoyww/animatediff",
                 "1.67 GB", "Apache-2.0", "models/animatediff_models", "temporal layers"):  # fmt: skip
        assert part in text
    text = str(missing_file_error("buffalo_l", []))
    assert "svp download" not in text and "buffalo_l.zip" in text and "non-commercial research only" in text
    assert "download and unpack https://" in text
    text = str(missing_file_error("vexpress", [tmp_path], ["motion_module.bin"], tmp_path))
    assert text.startswith(
        f'motion_module.bin not found in {tmp_path}: run `svp download vexpress --models "{tmp_path}"`'
    )
    assert f"into {tmp_path}/svp/vexpress" in text
    with pytest.raises(PortraitError, match="no entry 'sd16' in the model zoo; known are sd15, animatediff-v2"):
        entry_named("sd16")


def test_sizes_are_rounded_to_three_digits():
    assert [size_text(each) for each in (None, 12, 184990, 3758596, 4265146304)] == [
        "size not known", "12 B", "185 kB", "3.76 MB", "4.27 GB"
    ]  # fmt: skip


def test_the_files_of_v_express_are_those_that_its_loader_reads():
    assert tuple(Path(file.name).stem for file in ENTRIES["vexpress"].files) == FILES
