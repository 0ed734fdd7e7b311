from __future__ import annotations

import numpy as np

from svp_portrait.svp_models.headless.commands.demo import LABEL, SHEET_COLUMNS, TILE, contact_sheet
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
