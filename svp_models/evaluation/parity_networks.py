"""Parity of the networks: guider, audio projection, reference bank and the denoiser, step by step and module by module."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import PortraitError
from ..networks.attention import TransformerBlock
from ..networks.conditions import Conditions, ConditionWeights, cat
from ..networks.portrait_model import PortraitNetworks
from .parity import NETWORK, Measure, ParityFolder, check_inputs, compared

BANK = "bank."
INPUTS = {
    "kps_guider.images": "1 3 f H W",
    "audio_projection.input": "n rows features",
    "reference_net.latents": "1 latent h w",
    "unet.latents": "1 latent f h w",
    "unet.audio_embeddings": "f tokens d",
    "unet.kps_features": "1 c0 f h w",
}
# unet.<guidance batch or conditions alone>.t<timestep>[.weights_<reference>_<audio>].<noise_pred, or stage.<module>>
STEP = re.compile(r"unet\.(cfg|cond)\.t(\d+)(?:\.weights_([\d.]+)_([\d.]+))?\.(noise_pred|stage\.(.+))")


def check_networks(folder: ParityFolder, config: ModelConfig, networks: PortraitNetworks) -> Iterator[Measure]:
    """All of the folder's network outputs, in the order in which they depend on each other."""
    unet, audio = config.unet, config.audio
    sizes = {"latent": unet.latent_channels, "c0": unet.block_out_channels[0], "d": unet.cross_attention_dim}
    check_inputs(folder, INPUTS, sizes | {"tokens": audio.tokens, "features": audio.feature_size})
    with torch.no_grad():
        images = folder["kps_guider.images"].transpose(1, 2)  # 1 f 3 H W
        yield compared(folder, "kps_guider.features", networks.guider(images).transpose(1, 2), NETWORK)
        tokens = networks.audio_projection(folder["audio_projection.input"])
        yield compared(folder, "audio_projection.output", tokens, NETWORK)
        bank, sample = _run_reference(networks.reference, folder["reference_net.latents"])
        yield from _check_bank(folder, networks, bank)
        yield compared(folder, "reference_net.sample", sample, NETWORK)
        yield from _check_steps(folder, config, networks, bank)


def _run_reference(reference: nn.Module, latents: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    """The bank, and the network's own output, which nothing but this check reads: b c h w."""
    last = f"up_blocks.{len(reference.up_blocks) - 1}"
    with recorded(reference, {last}) as outputs:
        bank = reference(latents)
    return bank, reference.conv_out(outputs[last])


def _check_bank(folder: ParityFolder, networks: PortraitNetworks, bank: tuple[Tensor, ...]) -> Iterator[Measure]:
    paths = [path for path, each in networks.denoiser.named_modules() if isinstance(each, TransformerBlock)]
    listed = set(folder.values("bank_paths.json"))
    if listed != set(paths):
        odd = sorted(listed ^ set(paths))[0]
        raise PortraitError(f"{folder.path / 'bank_paths.json'}: {odd} is a block of only one of list and network")
    for path, entry in zip(paths, bank, strict=True):
        yield compared(folder, BANK + path, entry, NETWORK)


def _check_steps(
    folder: ParityFolder, config: ModelConfig, networks: PortraitNetworks, bank: tuple[Tensor, ...]
) -> Iterator[Measure]:
    runs: dict[tuple[str, ...], list[re.Match[str]]] = {}
    for name in folder.below("unet."):
        if found := STEP.fullmatch(name):
            runs.setdefault(found.groups("")[:4], []).append(found)
    if not runs:
        raise PortraitError(f"{folder.path}: there is no unet.*.noise_pred in it: the folder is not complete")
    latents = folder["unet.latents"].transpose(1, 2)  # 1 f c h w
    frames = latents.shape[1]
    conditions = Conditions(
        reference=bank,
        reference_latent=None,
        audio=folder["unet.audio_embeddings"].unflatten(0, (-1, frames)),  # 1 f tokens d
        kps=folder["unet.kps_features"].transpose(1, 2),  # 1 f c0 h w
        style=None,
    )
    both = cat(conditions.unconditional(), conditions)
    modules = {path for path, _ in networks.denoiser.named_modules()}
    for (mode, timestep, reference, audio), wanted in runs.items():
        weights = ConditionWeights(float(reference or config.reference_weight), float(audio or config.audio_weight))
        given, noisy = (both, torch.cat([latents, latents])) if mode == "cfg" else (conditions, latents)
        stages = {own_name(found[6]) for found in wanted if found[6]} & modules
        time = torch.full((len(noisy),), int(timestep))
        with recorded(networks.denoiser, stages) as outputs:
            prediction = networks.denoiser(noisy, time, given, weights)
        for found in wanted:
            if not found[6]:
                yield compared(folder, found[0], prediction.transpose(1, 2), NETWORK)
            elif own_name(found[6]) in outputs:
                yield compared(folder, found[0], outputs[own_name(found[6])][:1], NETWORK)  # of frame 0
            else:
                folder.used.add(found[0])
                yield Measure(found[0], NETWORK, math.inf, "our denoiser has no such module")


def own_name(path: str) -> str:
    """V-Express' name of a module of the denoiser -> ours."""
    return path.replace(".temporal_transformer", "")


@contextmanager
def recorded(network: nn.Module, paths: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """While it lasts, the latest output of the modules at these paths is kept; of a list of outputs the one handed on."""
    outputs: dict[str, Tensor] = {}
    hooks = []

    def keep(path: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor | list[Tensor]) -> None:
            outputs[path] = output[-1] if isinstance(output, list) else output

        return hook

    try:
        for path in paths:
            hooks.append(network.get_submodule(path).register_forward_hook(keep(path)))
        yield outputs
    finally:
        for each in hooks:
            each.remove()
