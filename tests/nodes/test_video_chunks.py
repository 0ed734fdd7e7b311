"""A latent that lies in a file is decoded piece by piece, and no piece stays in memory."""

from __future__ import annotations

import torch

from svp_portrait.nodes import video as module
from svp_portrait.nodes.video import CHUNK, image_chunks
from svp_portrait.svp_models.io.memory_map import Storage, as_tensor


class Doubler:
    """A VAE whose pictures are twice the latent."""

    def decode(self, samples):
        return 2 * samples.movedim(1, -1)


def test_a_latent_in_a_file(tmp_path, monkeypatch):
    numbers = torch.rand(2 * CHUNK + 3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    rows = Storage(str(tmp_path), budget=0).zeros(numbers.shape)
    rows[:] = numbers
    latent, released = as_tensor(rows), []
    monkeypatch.setattr(module, "release", lambda tensor: released.append(tensor is latent))
    pictures = list(image_chunks(None, {"samples": latent}, Doubler()))
    assert [len(each) for each in pictures] == [CHUNK, CHUNK, 3] and released == [True] * 3
    assert torch.equal(torch.cat(pictures), 2 * numbers.movedim(1, -1))
