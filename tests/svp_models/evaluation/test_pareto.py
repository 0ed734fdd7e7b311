"""What accelerations give and cost: products counted without computing, errors on test people, and the plot."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from svp_portrait.nodes.command import open_nodes
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.diffusion.acceleration import EXACT, Acceleration
from svp_portrait.svp_models.evaluation.pareto import SETTINGS, ParetoOptions, denoising_products, front, pareto
from svp_portrait.svp_models.evaluation.plots import COLOURS, speed_against_quality
from svp_portrait.svp_models.presets import PRESETS as MODELS

SMALL = replace(MODELS["demo"], size=64)
FOUR = ParetoOptions(steps=4)


def products(options: ParetoOptions = FOUR, **settings) -> float:
    return denoising_products(Acceleration(**settings), options, SMALL)


def test_products_are_those_of_the_steps_that_are_left():
    step, outer = products(replace(FOUR, steps=1)), products(replace(FOUR, steps=2), cache_every=2)
    assert products() == 4 * step
    assert products(cache_every=2) == 2 * outer and step < outer < 2 * step
    half = products(replace(FOUR, cfg=1.0))
    assert products(guidance_end=0.5) == (products() + half) / 2
    # The third step needs both halves, of which the first two have stored one: it runs all layers.
    assert products(guidance_start=0.5, cache_every=4) == products(guidance_start=0.5, cache_every=2)


def test_every_setting_of_the_list_leaves_something_out():
    free = {"exact", "guidance until cosine 0.95"}  # how many steps this one saves, the clip decides
    counted = {name: denoising_products(setting, FOUR, SMALL) for name, setting in SETTINGS.items()}
    assert {name for name, value in counted.items() if value >= counted["exact"]} == free
    assert SETTINGS["exact"] == EXACT


def test_the_front_has_what_nothing_beats_in_both():
    rows = [
        {"case": name, "speedup": x, "psnr": y}
        for name, x, y in (("a", 3, 30), ("b", 1, 50), ("c", 2, 29), ("d", 2, 40))
    ]
    assert [row["case"] for row in front(rows)] == ["b", "d", "a"]


def test_the_plot_puts_the_faster_to_the_right_and_the_better_up():
    points = {"slow and good": (1.0, 50.0), "fast and bad": (4.0, 30.0), "between": (2.0, 35.0)}
    image = speed_against_quality(points, ["slow and good", "fast and bad"], "speed", "dB")
    red, green, blue = (int(COLOURS[1][at : at + 2], 16) for at in (1, 3, 5))
    ys, xs = ((image == (red, green, blue)).all(-1)).nonzero()  # the one that is not best has a colour of its own
    assert 0.3 < (xs.mean() - 70) / 626 < 0.45 and 0.6 < (ys.mean() - 24) / 640 < 0.8


def test_a_setting_is_compared_with_the_exact_result():
    options = ParetoOptions(people=1, frames=4, steps=3)
    exact, fast = pareto(
        load_model(BUILTIN_MODEL), options, {"exact": EXACT, "fast": Acceleration(3, guidance_end=0.4)}
    )
    assert (exact["speedup"], exact["large_speedup"], exact["psnr"], exact["ssim"]) == (1, 1, 99, 1)
    assert fast["speedup"] > 1.5 and fast["large_speedup"] > 1.5
    assert 15 < fast["least_psnr"] <= fast["psnr"] < 99 and 0.5 < fast["ssim"] < 1
    assert -1 <= fast["stylesim"] <= 1 and fast["jitter"] > 0


@pytest.mark.slow
def test_the_command_writes_rows_and_a_picture(tmp_path, capsys):
    plot = tmp_path / "new" / "pareto.png"
    command = ["bench", "pareto", "--people", "1", "--frames", "4", "--steps", "2", "--json", "--out", str(plot)]
    assert main(open_nodes, [*command, "--setting", "cache_every=2", "--setting", "guidance_end=0.5"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["case"] for row in rows] == ["cache_every=2", "guidance_end=0.5"]
    assert plot.read_bytes().startswith(b"\x89PNG")
