from __future__ import annotations

import subprocess
import sys

import torch
from torch import nn

from svp_portrait.svp_models.networks.attention import shapes_only

LOAD = """
import sys
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
load_model(BUILTIN_MODEL)
print(sorted(each for each in ("torch._dynamo", "sympy", "diffusers", "transformers") if each in sys.modules))
"""


def test_layers_are_built_without_memory():
    with shapes_only():
        layer, table = nn.Linear(3, 4), nn.Embedding(5, 6)
        drawn = nn.init.normal_(torch.empty(2, 7))
    assert layer.weight.is_meta and table.weight.is_meta and table.weight.shape == (5, 6)
    assert drawn.is_meta and drawn.shape == (2, 7)
    assert nn.Embedding(5, 6).weight.std() > 0, "outside random numbers are drawn as ever"


def test_the_built_in_model_is_read_without_a_compiler():
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"
