from __future__ import annotations

import numpy as np

from svp_portrait.svp_models.cli import generate as module
from svp_portrait.svp_models.cli.generate import LABEL, SHEET_COLUMNS, TILE, contact_sheet
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.io.files import reserved_file
from svp_portrait.svp_models.media.writer import VideoWriter


def test_contact_sheet_has_a_row_for_each_clip(tmp_path):
    clips = {}
    for name, value in (("dark", 40), ("light", 200)):
        clips[name] = tmp_path / f"{name}.mp4"
        with VideoWriter(clips[name], 64, 64, 25, None) as writer:
            writer.write(np.full((9, 64, 64, 3), value, np.uint8))
    sheet = contact_sheet(clips)
    assert sheet.shape == (2 * (LABEL + TILE), SHEET_COLUMNS * TILE, 3)
    assert abs(int(sheet[LABEL + TILE // 2].mean()) - 40) < 6
    assert abs(int(sheet[-TILE // 2].mean()) - 200) < 6


def test_every_demo_has_files_of_its_own(tmp_path, monkeypatch, capsys):
    def run_workflow(graph, open_nodes, inputs, out, assignments):
        name = assignments[-1].partition("=")[2]
        with reserved_file(out, name, "mp4") as path, VideoWriter(path, 64, 64, 25) as writer:
            writer.write(np.zeros((9, 64, 64, 3), np.uint8))
        return [path]

    monkeypatch.setattr(module, "run_workflow", run_workflow)
    names = ("demo_contact_sheet", "demo_happy", "demo_sad")
    for _ in range(2):
        assert main(lambda folders, progress: [], ["demo", "--out", str(tmp_path)]) == 0
    endings = {"demo_contact_sheet": "jpg"}
    expected = [f"{name}_{number:05}_.{endings.get(name, 'mp4')}" for name in names for number in (1, 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == expected
    printed = capsys.readouterr().out.splitlines()
    assert [line.rpartition("/")[2] for line in printed if line.startswith("/")] == [
        *expected[2::2],
        expected[0],
        *expected[3::2],
        expected[1],
    ]


def test_an_interrupted_demo_leaves_the_clips_that_are_whole(tmp_path, monkeypatch, capsys):
    def run_workflow(graph, open_nodes, inputs, out, assignments):
        if "sad" in assignments[-1]:
            raise KeyboardInterrupt
        return [out / "demo_happy_00001_.mp4"]

    monkeypatch.setattr(module, "run_workflow", run_workflow)
    assert main(lambda folders, progress: [], ["demo", "--out", str(tmp_path)]) == 130
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}/demo_happy_00001_.mp4\n" and "nothing half-written" in printed.err
