import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.figures import (
    PAPER,
    RECONSTRUCTION,
    STYLE_TRANSFER,
    Row,
    Table,
    bootstrap_interval,
    over_seeds,
    paper_rows,
    seed_tables,
    summarize,
)
from svp_portrait.svp_models.evaluation.report import number


def test_the_mean_and_its_interval():
    """The interval of a mean of many values is about 1.96 standard errors on either side."""
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = bootstrap_interval(values)
    error = 1.96 * values.std() / np.sqrt(400)
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.25 * error)
    assert bootstrap_interval([3.0, 3.0]) == (3, 3)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)


def test_a_row_does_not_depend_on_the_order_of_its_clips():
    clips = {f"clip {index}": {"psnr": float(value)} for index, value in enumerate(np.random.default_rng(1).random(9))}
    turned = dict(reversed(clips.items()))
    assert summarize("a", clips) == summarize("a", turned)


def test_a_figure_counts_the_clips_that_have_it():
    row = summarize("a", {"one": {"psnr": 20.0, "lpips": 0.2}, "two": {"psnr": 30.0}})
    assert row.values == {"psnr": 25.0, "lpips": 0.2}
    assert set(row.intervals) == {"psnr"}


def table(column: str, *values: float, competes: bool = True) -> Table:
    rows = tuple(Row(str(value), {column: value}) for value in values)
    return Table("", (column,), (*rows, Row("truth", {column: 0.0}, competes=competes)))


def test_the_best_is_the_highest_the_lowest_or_the_nearest():
    assert table("psnr", 20, 31, 30, competes=False).best("psnr") == {1}
    assert table("fid", 20, 31, 10, competes=False).best("fid") == {2}
    assert table("sharpness", 0.4, 1.3, 0.9, competes=False).best("sharpness") == {2}


def test_what_is_printed_alike_is_equally_good():
    assert table("psnr", 20.001, 20.004, 19, competes=False).best("psnr") == {0, 1}


def test_nothing_is_best_without_a_direction_or_a_rival():
    assert table("blink_rate", 3, 4).best("blink_rate") == set()
    assert table("psnr", 3, competes=False).best("psnr") == set()
    assert table("of its own", 3, 4).best("of its own") == set()


def test_published_rows_do_not_compete():
    assert [row.label for row in paper_rows(STYLE_TRANSFER)] == ["SVP without style, MEAD (paper)", "SVP, MEAD (paper)"]
    assert not any(row.competes for protocol in PAPER for row in paper_rows(protocol))
    best = {row.label: row.values for row in paper_rows(RECONSTRUCTION)}["SVP, HDTF (paper)"]
    assert (best["fvd"], best["fid"], best["sync_offset"], best["sync_confidence"]) == (102.40, 10.39, 0.2, 5.40)


def seed_figures(seed: int, psnr: float) -> dict[str, object]:
    return {
        "psnr": psnr,
        "mouth_lag": 0,
        "interpolation": [0.0, psnr / 100],
        "steps_psnr": {"1": psnr + 1, "4": psnr + 2},
        "systems": {"SVP": {"psnr": psnr}, "truth": {"ssim": 1.0}},
        "style_transfer": {"SVP": {"emotion_acc": 0.5}, "standard deviation over 2 seeds of SVP": {"emotion_acc": 0.1}},
        "missing": {"fid": "no weights"},
        "model": "demo",
        "clips": 16,
        "seed": seed,
    }


@pytest.fixture
def several():
    return {seed: seed_figures(seed, psnr) for seed, psnr in ((0, 26.0), (5, 28.0), (9, 30.0))}


def test_means_and_spread_have_the_same_names(several):
    found = over_seeds(several)
    assert found["psnr"] == 28 and found["mouth_lag"] == 0 and found["steps_psnr"] == {"1": 29, "4": 30}
    assert found["interpolation"] == pytest.approx([0, 0.28])
    assert found["spread"]["psnr"] == pytest.approx(np.std([26, 28, 30], ddof=1)) and found["spread"]["mouth_lag"] == 0
    assert found["spread"]["systems"]["SVP"] == {"psnr": pytest.approx(2)}
    assert found["seeds"] == [0, 5, 9] and found["clips"] == 48 and "seed" not in found
    assert found["model"] == "demo" and found["missing"] == {"fid": "no weights"}


def test_the_order_of_the_seeds_does_not_matter(several):
    turned = over_seeds(dict(reversed(several.items())))
    for key in ("psnr", "systems", "spread"):
        assert turned[key] == over_seeds(several)[key]


def test_one_seed_has_no_spread():
    assert over_seeds({0: seed_figures(0, 26.0)})["spread"] == {}


def test_what_one_seed_lacks_is_left_out(several):
    del several[5]["systems"]["SVP"]["psnr"]
    assert over_seeds(several)["systems"]["SVP"] == {}


def test_tables_show_a_standard_deviation_to_either_side(several):
    reconstruction, transfer = seed_tables(several)
    row = reconstruction.rows[0]
    assert row.label == "SVP" and number("psnr", row.values["psnr"]) == "28.00"
    assert row.intervals["psnr"] == pytest.approx((26, 30))
    assert [row.competes for row in reconstruction.rows] == [True, False]
    assert [row.label for row in transfer.rows] == ["SVP"]
    assert "0, 5, 9" in reconstruction.note
