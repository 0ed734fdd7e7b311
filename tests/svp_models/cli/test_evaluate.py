from __future__ import annotations

import json
import re

from safetensors.torch import load_file, save_file

from svp_portrait.svp_models.cli import evaluate as command
from svp_portrait.svp_models.cli.evaluate import line
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.evaluation.emotions import EmotionStudy
from svp_portrait.svp_models.evaluation.parity import IDENTICAL, LOOP, NETWORK, Measure
from svp_portrait.svp_models.evaluation.protocols import Evaluation, StyleCodes
from svp_portrait.svp_models.evaluation.report import Report, Section
from svp_portrait.svp_models.synthetic.performance import EMOTIONS

LAST = re.compile(r"max (\S+) (\d\.\d{3}e[+-]\d\d)")


def check(folder, capsys) -> tuple[int, list[str], str]:
    code = main(lambda folders, progress: [], ["check-parity", str(folder)])
    printed = capsys.readouterr()
    return code, printed.out.splitlines(), printed.err


def test_the_numbers_of_v_express(parity_original, capsys):
    code, lines, errors = check(parity_original, capsys)
    assert code == 0 and errors == ""
    networks, loops = (LAST.fullmatch(each) for each in lines[-2:])
    assert float(networks[2]) <= 1e-5 and float(loops[2]) <= 1e-4
    assert loops[1] in ("loop.final_latents", "loop_no_cfg.final_latents")
    stored = load_file(parity_original / "io.safetensors")
    printed = {each.split()[0]: each.split()[1] for each in lines[:-2]}
    inputs = {"images", "input", "latents", "kps_features", "keypoints", "reference_keypoints", "target_keypoints",
              "encoder_states", "init_latents", "reference_latents"}  # fmt: skip
    given = {"unet.audio_embeddings", "unet.kps_features"}
    expected = {name for name in stored if name.rpartition(".")[2] not in inputs or name == "loop.kps_features"} - given
    assert len(expected) > 40 and expected <= printed.keys()
    assert printed["draw_kps_images"] == printed["loop_kps_images"] == printed["context_windows.104.24.4"] == "0"


def test_a_miss_ends_with_code_1_and_is_named(parity_folder, capsys):
    io = load_file(parity_folder / "io.safetensors")
    io["unet.cond.t981.noise_pred"] *= 1.01
    save_file(io, parity_folder / "io.safetensors")
    code, lines, errors = check(parity_folder, capsys)
    assert code == 1
    assert re.fullmatch(r"svp: 1 of \d+ limits exceeded: unet\.cond\.t981\.noise_pred\n", errors)
    assert LAST.fullmatch(lines[-2])[1] == "unet.cond.t981.noise_pred" and LAST.fullmatch(lines[-1])
    assert [each for each in lines if "MISSED, at most 1e-05" in each][0].startswith("unet.cond.t981.noise_pred ")


def test_folders_without_data_are_one_line(tmp_path, vexpress_folder, capsys):
    for folder in (tmp_path / "nowhere", vexpress_folder):
        code, lines, errors = check(folder, capsys)
        assert code == 1 and lines == []
        assert errors.startswith(f"svp: {folder}: there is no io.safetensors") and errors.count("\n") == 1


def test_lines():
    assert line(Measure("a", NETWORK, 1.5e-6)).split() == ["a", "1.500e-06"]
    assert line(Measure("b", IDENTICAL, 3, "of 9 pixels differ")).split(maxsplit=2)[1:] == [
        "3",
        "MISSED, at most 0; of 9 pixels differ",
    ]
    assert line(Measure("c", LOOP, None, "not compared")).split(maxsplit=2)[1:] == ["-", "not compared"]


def test_several_seeds_are_means_with_their_spread(tmp_path, monkeypatch, capsys):
    measured = []

    def run(model, size, seed, progress, reader, version, beside, bank):
        assert version == 2 and not beside and size.most == 3 and bank.config.emotions == EMOTIONS
        measured.append(seed)
        progress(1, 1)
        values = {
            "psnr": 20.0 + seed,
            "systems": {"SVP": {"psnr": 20.0 + seed}},
            "style_transfer": {},
            "clips": 4,
            "seed": seed,
        }
        return Evaluation(values, {}, None, StyleCodes({}, [], [], []), EmotionStudy(None, None, 0, 0))

    def report(shown, config, tables):
        assert shown.figures["seed"] == 3 and config["seeds"] == [3, 5]
        return Report("A report", "", (Section("Several seeds", tables=tables),))

    monkeypatch.setattr(command, "run_evaluation", run)
    monkeypatch.setattr(command, "demo_report", report)
    arguments = ["evaluate", "demo", "--quick", "--cases", "3", "--seeds", "3", "5", "3", "--out", str(tmp_path)]
    assert main(lambda folders, progress: [], arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert measured == [3, 5]
    assert found["psnr"] == 24 and found["spread"]["psnr"] == 2**0.5 and found["clips"] == 8
    assert found["model"] == "portrait.safetensors"
    row = json.loads((tmp_path / "report.json").read_text())["tables"]["Reconstruction, 2 seeds"]["rows"][0]
    assert row["figures"]["psnr"] == 24 and row["intervals"]["psnr"] == [24 - 2**0.5, 24 + 2**0.5]
