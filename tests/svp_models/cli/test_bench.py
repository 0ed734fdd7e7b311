from __future__ import annotations

import json

from svp_portrait.svp_models.cli.main import main


def test_a_line_for_every_case(capsys):
    assert main(lambda *_: None, ["bench", "liveportrait", "--size", "tiny", "--frames", "1", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["case"] == "matmul" and rows[0]["gflop_per_second"] > 0
    assert all({"case", "seconds", "gflop", "share_of_matmul"} <= set(row) for row in rows[1:])


def test_numbers_are_checked(capsys):
    try:
        main(lambda *_: None, ["bench", "liveportrait", "--frames", "0"])
    except SystemExit as error:
        assert error.code == 2
    assert "'0' is no number from 1 on" in capsys.readouterr().err


def test_products_of_a_preset_are_counted(capsys):
    arguments = ["bench", "demo", "--size", "64", "--device", "meta", "--json"]
    assert main(lambda *_: None, arguments) == 0
    rows = {row["case"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["denoiser"]["gflop"] < rows["denoiser"]["plain_gflop"]


def test_a_device_that_is_not_there_is_named(capsys):
    assert main(lambda *_: None, ["bench", "demo", "--device", "tpu"]) == 1
    assert "--device tpu: choose cpu, cuda or meta" in capsys.readouterr().err
