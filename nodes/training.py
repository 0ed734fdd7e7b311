"""Training: the phases of the paper on a model that is loaded, with what Prepare Training Data made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ..svp_models.checkpoints.model_file import load_model
from ..svp_models.training.config import PRECISIONS
from ..svp_models.training.recipe import open_training
from . import host
from .dataset import check_name, output_path
from .host import io, ui
from .loaders import MODEL_FOLDER
from .types import ADVANCED, DatasetSocket, LoadedModel, PreparedDataset, SvpModel, seed_input

RUNS = "svp_training"
STAGES = ("stage1", "stage2", "stage3")
OUTPUTS = [
    SvpModel.Output("model", tooltip="The trained model, with the audio encoder of the one it was trained from."),
    io.String.Output("file", tooltip=f"Its file below output/{MODEL_FOLDER}, which Load Portrait Model lists."),
]
KEPT = (
    f"Its state is saved in output/{RUNS}/NAME: if it was stopped, queue it again and it continues; if it is finished, its result is "
    "used. Works on the GPU without the host's memory management: other models leave it first, as far as their room is needed. Needs the "
    "pack's extra 'train'."
)


def common_inputs(name: str) -> list[Any]:
    """The inputs that all training nodes begin with."""
    return [
        SvpModel.Input("model", tooltip="The model to start from; it does not change."),
        DatasetSocket.Input("dataset", tooltip="From Prepare Training Data."),
        io.String.Input(
            "name",
            default=name,
            tooltip=f"Of the run and of the model file output/{MODEL_FOLDER}/NAME.safetensors; one name for each training.",
        ),
    ]


def learning_inputs(steps: int, batch_size: int, least: int, learning_rate: float, samples: str) -> list[Any]:
    """Number of steps, batch size and learning rate."""
    return [
        io.Int.Input("steps", default=steps, min=1, max=10**7, step=1, tooltip="Optimiser steps."),
        io.Int.Input("batch", default=batch_size, min=least, max=4096, step=1, tooltip=f"{samples} in a step."),
        io.Float.Input(
            "learning_rate",
            default=learning_rate,
            min=1e-6,
            max=0.1,
            step=1e-6,
            extra_dict=ADVANCED,
            tooltip="Step size of Adam, at its highest: it rises over the first tenth of the steps (50 at most) and falls to a tenth of it.",
        ),
    ]


def training_seed() -> Any:
    """No control_after_generate: another seed is another training, which would start again with every run of the graph."""
    return seed_input("The same seed sees the same samples.", changes=False, advanced=True)


def train(
    model: LoadedModel, dataset: PreparedDataset, name: str, phase_name: str, phase: Any, seed: int
) -> io.NodeOutput:
    """Trains a phase of a model and returns the model of the file it has written."""
    file = f"{name}.safetensors"
    output, folder = output_path(MODEL_FOLDER, file), output_path(RUNS, name)
    cpu = host.free_memory(open_training("dry_run").training_memory(model.portrait, phase))
    with torch.inference_mode(False), torch.enable_grad():  # the host runs its nodes without gradients
        training = open_training("run")
        request = training.PhaseRequest(phase_name, phase, dataset.folder, folder, output, seed)
        training.train_phase(model.portrait, request, host.progress(), cpu)
    portrait = replace(load_model(output, dtype=None), audio_encoder=model.portrait.audio_encoder)
    loaded = replace(LoadedModel.of(portrait), encoder_handle=model.encoder_handle)
    return io.NodeOutput(loaded, file, ui={MODEL_FOLDER: [ui.SavedResult(file, MODEL_FOLDER, io.FolderType.output)]})


class SVPTrainStyleExtractor(io.ComfyNode):
    """SVP_MODEL and SVP_DATASET -> SVP_MODEL with another style space."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPTrainStyleExtractor",
            display_name="Train Style Extractor (SVP)",
            category="SVP Portrait/training",
            description="Teaches the style extractor to tell speaking styles apart (InfoNCE). Earlier styles no longer fit, "
            f"and the style layers have to be trained after it: stage 3. {KEPT}",
            is_output_node=True,
            inputs=[
                *common_inputs("my_extractor"),
                *learning_inputs(2000, 64, 4, 1e-4, "Clips, two of each style and four styles of each person,"),
                io.Float.Input(
                    "temperature",
                    default=0.1,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    extra_dict=ADVANCED,
                    tooltip="Divisor in the contrastive loss: lower looks harder at the styles that are most alike.",
                ),
                training_seed(),
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        return check_name(name)

    @classmethod
    def execute(
        cls, model, dataset, name: str, steps: int, batch: int, learning_rate: float, temperature: float, seed: int
    ) -> io.NodeOutput:
        phase = open_training("run").style_phase(model.portrait, steps, batch, learning_rate, temperature)
        return train(model, dataset, name, "style", phase, seed)


class SVPTrainStage(io.ComfyNode):
    """SVP_MODEL and SVP_DATASET -> SVP_MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPTrainStage",
            display_name="Train Portrait Model (SVP)",
            category="SVP Portrait/training",
            description="One of the three stages of training: 1 the portrait in a single frame, 2 movement and lips, 3 style. Each "
            f"goes on from the result of the one before. {KEPT}",
            is_output_node=True,
            inputs=[
                *common_inputs("my_model"),
                io.Combo.Input(
                    "stage",
                    options=list(STAGES),
                    default="stage3",
                    tooltip="stage1: denoiser, ReferenceNet and keypoint guider, single frames. stage2: temporal and audio layers. "
                    "stage3: style layers alone, for a model that talks already.",
                ),
                *learning_inputs(1000, 1, 1, 1e-5, "Samples, each of some frames of a clip,"),
                io.Int.Input(
                    "frames",
                    default=8,
                    min=2,
                    max=32,
                    step=1,
                    tooltip="Consecutive frames of a sample; stage1 takes single ones.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="no",
                    extra_dict=ADVANCED,
                    tooltip="no: float32. bf16, fp16: mixed precision, faster and smaller on a GPU; bf16 is the safer one.",
                ),
                io.Int.Input(
                    "checkpoint_steps",
                    default=200,
                    min=1,
                    max=10**6,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Steps between checkpoints, against a crash; stopping keeps one anyway.",
                ),
                training_seed(),
                io.Boolean.Input(
                    "gradient_checkpointing",
                    default=False,
                    optional=True,
                    extra_dict=ADVANCED,
                    tooltip="Computes the layers' values twice instead of keeping them: slower, much less memory.",
                ),
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def validate_inputs(cls, name: str | None) -> bool | str:
        return check_name(name)

    @classmethod
    def execute(
        cls, model, dataset, name: str, stage: str, steps: int, batch: int, learning_rate: float, frames: int,
        precision: str, checkpoint_steps: int, seed: int, gradient_checkpointing: bool = False,
    ) -> io.NodeOutput:  # fmt: skip
        settings = {"steps": steps, "batch_size": batch, "learning_rate": learning_rate, "precision": precision}
        settings |= {"checkpoint_steps": checkpoint_steps, "gradient_checkpointing": gradient_checkpointing}
        phase = open_training("run").stage_phase(stage, frames, **settings)
        return train(model, dataset, name, stage, phase, seed)
