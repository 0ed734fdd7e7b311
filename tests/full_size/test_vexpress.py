"""V-Express' five files at full width (random values, half precision) there and back: loaded, converted, run, written again.

Opt-in, because it writes 14 GB and computes for minutes: SVP_FULL_SIZE=FOLDER pytest tests/full_size --log-cli-level=INFO
"""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.model_file import load_model
from svp_portrait.svp_models.checkpoints.vexpress import FILES, load_vexpress
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.config import SchedulerConfig
from svp_portrait.svp_models.diffusion.conditioning import ClipConditions, KpsFeatureCache
from svp_portrait.svp_models.diffusion.noise_schedule import sampling_schedule
from svp_portrait.svp_models.diffusion.pipeline import SamplerOptions, WindowedDenoiser, clip_noise
from svp_portrait.svp_models.diffusion.samplers import sample_ddim
from svp_portrait.svp_models.model import PortraitModel
from svp_portrait.svp_models.networks.attention import sinusoidal_encoding
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS

from ..reference.weights import full_size_shapes

BYTES = 15e9
FRAMES, SIZE = 6, 256
LOG = logging.getLogger(__name__)

pytestmark = [pytest.mark.full_size, pytest.mark.timeout(3600)]


class Memory:
    """Seconds, and bytes of anonymous memory, what mapped files occupy not counted: kept afterwards and at most, above before."""

    def __enter__(self) -> Memory:
        gc.collect()
        self.before, self.started = self.now(), time.monotonic()
        self.peak, self.running = 0, True
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.running = False
        self.watch.join()
        self.seconds, self.kept = time.monotonic() - self.started, self.now() - self.before

    def _watch(self) -> None:
        while self.running:
            self.peak = max(self.peak, self.now() - self.before)
            time.sleep(0.05)

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s, {self.kept / 1e9:.2f} GB kept, {self.peak / 1e9:.2f} GB at most"


def svp(*arguments: object) -> None:
    assert main(lambda *given: [], [str(item) for item in arguments]) == 0


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A new folder with room, removed at the end."""
    named = os.environ.get("SVP_FULL_SIZE")
    if not named:
        pytest.skip("SVP_FULL_SIZE is not set: name a folder with 15 GB free for files of V-Express' full size")
    if not sys.platform.startswith("linux"):
        pytest.skip("memory is measured through /proc, which only Linux has")
    Path(named).mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(named).free
    if free < BYTES:
        pytest.fail(f"{named} has {free / 1e9:.1f} GB free, {BYTES / 1e9:.0f} GB are needed")
    folder = Path(named) / f"svp-full-size-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def published(place) -> Path:
    """The folder as published, with a VAE beside the five files; every value random but the positions."""
    folder, generator = place / "v-express", torch.Generator().manual_seed(0)
    folder.mkdir()

    def draw(name: str, shape: list[int]) -> torch.Tensor:
        if name.endswith("pos_encoder.pe"):
            return sinusoidal_encoding(*shape[1:], torch.zeros(()))[None].half()
        middle = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0  # norms keep the numbers finite
        return torch.randn(shape, generator=generator).mul_(0.02).add_(middle).half()

    for stem, shapes in full_size_shapes().items():
        torch.save({name: draw(name, shape) for name, shape in shapes.items()}, folder / f"{stem}.bin")
    with torch.device("meta"):
        vae = build_vae(PRESETS["vexpress"].vae).autoencoder
    tensors = {name: draw(name, list(tensor.shape)) for name, tensor in vae.state_dict().items()}
    save_file(tensors, folder / "sd-vae-ft-mse.safetensors")
    LOG.info("published: %.2f GB", sum(path.stat().st_size for path in folder.iterdir()) / 1e9)
    return folder


@pytest.fixture(scope="module")
def native(published, place) -> Path:
    """The one file that `svp convert` makes of them: the weights are never in memory all at once."""
    path = place / "model.safetensors"
    with Memory() as memory:
        svp("convert", published, "--out", path)
    LOG.info("convert: %s; %.2f GB", memory, path.stat().st_size / 1e9)
    assert memory.peak < 0.5 * path.stat().st_size
    return path


def one_step(model: PortraitModel) -> torch.Tensor:
    """Every network on random inputs: a step of guided denoising, f c h/8 w/8."""
    generator = torch.Generator().manual_seed(1)
    config, networks = model.config, model.networks
    latent = torch.randn(1, 4, SIZE // 8, SIZE // 8, generator=generator)
    sound = torch.randn(FRAMES, config.audio.window, config.audio.feature_size, generator=generator)
    pictures = torch.rand(FRAMES, 3, SIZE, SIZE, generator=generator)
    style = torch.randn(FRAMES, config.style.style_size, generator=generator)
    with torch.no_grad():
        conditions = ClipConditions(
            reference=networks.reference(latent),
            reference_latent=None,
            audio=networks.audio_projection(sound),
            style=networks.style_projection(style),
            kps=KpsFeatureCache(networks.guider, pictures, (SIZE, SIZE), config.keypoints),
        )
        noise = clip_noise(FRAMES, (4, SIZE // 8, SIZE // 8), 2)
        schedule = sampling_schedule(SchedulerConfig(), 1)
        options = SamplerOptions(steps=1, cfg=3.5, window=FRAMES, overlap=0)
        return sample_ddim(WindowedDenoiser(model, conditions, options, schedule), noise, schedule)


def test_a_published_half_precision_folder_is_mapped(published):
    with Memory() as memory:
        model = load_vexpress(published, torch.float16)
    LOG.info("load_vexpress, float16: %s", memory)
    assert model.networks.reference.conv_in.weight.dtype == torch.float16
    assert memory.peak < 0.25 * sum(path.stat().st_size for path in published.iterdir())


def test_a_model_file_is_mapped(native):
    with Memory() as memory:
        model = load_model(native, dtype=None)
    LOG.info("load_model, as stored: %s", memory)
    assert model.networks.denoiser.conv_in.weight.dtype == torch.float16
    assert memory.peak < 0.1 * native.stat().st_size


def test_a_step_of_the_folder_and_of_the_file_are_equal(published, native):
    results = []
    for name, load in (("folder", lambda: load_vexpress(published)), ("file", lambda: load_model(native))):
        with Memory() as memory:
            model = load()
        weights = sum(tensor.nbytes for tensor in (*model.networks.parameters(), *model.vae.parameters()))
        LOG.info("%s, float32: %s; weights %.2f GB", name, memory, weights / 1e9)
        assert memory.peak < 1.1 * weights
        with Memory() as memory:
            results.append(one_step(model))
        LOG.info("one step at %d x %d, %d frames: %s", SIZE, SIZE, FRAMES, memory)
        del model
    assert torch.isfinite(results[0]).all() and results[0].std() > 0.1
    assert torch.equal(*results)


def test_the_files_come_back_bit_for_bit(published, native, place):
    folder = place / "back"
    with Memory() as memory:
        svp("convert", native, "--to", "vexpress", "--out", folder)
    LOG.info("convert --to vexpress: %s", memory)
    for stem in FILES:
        first, second = (torch.load(item / f"{stem}.bin", weights_only=True, mmap=True) for item in (published, folder))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert second[name].dtype == tensor.dtype and torch.equal(second[name], tensor), f"{stem}: {name}"
