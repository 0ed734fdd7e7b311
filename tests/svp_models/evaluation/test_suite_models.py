"""The built-in model on a small prepared data set of drawn people, by both protocols."""

from dataclasses import replace

import numpy as np
import pytest

from svp_portrait.svp_models.data.manifest import open_manifest
from svp_portrait.svp_models.data.prepare import prepare
from svp_portrait.svp_models.data.schema import OutputOptions, PrepareConfig, SyntheticOptions
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.report import report_json
from svp_portrait.svp_models.evaluation.suite import NEAREST_CLIP, SuiteConfig, SystemConfig, list_jobs, read_suite
from svp_portrait.svp_models.evaluation.suite_models import nearest_training_clip, played, read_clip
from svp_portrait.svp_models.evaluation.suite_report import run_suite

SYSTEMS = (
    SystemConfig("SVP"),
    SystemConfig("without style", style="none"),
    SystemConfig("other", style="other emotion"),
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    output = OutputOptions(size=64, seconds=1.6)
    prepare(None, folder, PrepareConfig(output, synthetic=SyntheticOptions(2, 2, 3, seed=4)))
    return folder


def suite(dataset, protocol: str, **changes) -> SuiteConfig:
    values = {"dataset": str(dataset), "systems": SYSTEMS, "clips": 1, "frames": 26, "tolerance": 1, **changes}
    return SuiteConfig("small", protocol, **values)


def rows(report) -> dict:
    found: dict = {}
    for table in ("Figures of the paper", "More figures"):
        for row in report_json(report)["tables"][table]["rows"]:
            found.setdefault(row["system"], {}).update(row["figures"])
    return found


def test_style_transfer_of_drawn_people(dataset, tmp_path):
    report = run_suite(suite(dataset, "style_transfer"), tmp_path)
    found = rows(report)
    assert list(found) == [
        "still portrait",
        "warped portrait",
        "VAE alone",
        *(system.name for system in SYSTEMS),
        "truth",
    ]
    assert found["VAE alone"]["psnr"] > max(
        found[name]["psnr"] for name in ("SVP", "warped portrait", "still portrait")
    )
    assert found["warped portrait"]["psnr"] > found["still portrait"]["psnr"]
    assert found["SVP"]["mouth_corr"] > found["warped portrait"]["mouth_corr"]
    assert found["SVP"]["stylesim"] != found["without style"]["stylesim"]
    assert found["other"]["psnr"] != found["SVP"]["psnr"]
    assert found["SVP"]["seams"] > 0 and "seams" not in found["warped portrait"]  # 26 frames are two windows
    published = report_json(report)["tables"]["Beside the paper"]["rows"]
    assert [row["system"] for row in published][:2] == ["SVP without style, MEAD (paper)", "SVP, MEAD (paper)"]
    assert [len(section.pictures) for section in report.sections if section.title == "Contact sheet"] == [1]


def test_a_reconstruction_begins_with_the_true_frame(dataset, tmp_path):
    config = suite(dataset, "reconstruction", systems=SYSTEMS[:1], clips=1, baselines=("still portrait", "mute voice"))
    found = rows(run_suite(config, tmp_path))
    assert list(found) == ["still portrait", "mute voice", "SVP", "truth"]
    assert found["SVP"]["mouth_corr"] > found["mute voice"]["mouth_corr"]
    jobs = list_jobs(config)
    assert jobs[0].keys[0] == jobs[0].keys[1]


def test_the_nearest_training_clip_is_of_the_person_who_looks_alike(dataset, tmp_path):
    config = suite(dataset, "reconstruction", systems=SYSTEMS[:1], baselines=("still portrait", NEAREST_CLIP))
    entries = [entry for _, entry in open_manifest(dataset).samples("train")]
    for entry in entries:
        seen = read_clip(config, entry.key, 64)
        stranger = replace(seen, info=replace(seen.info, identity="somebody else"))
        found = next(other for other in entries if other.key == nearest_training_clip(config, stranger))
        assert (found.identity, found.emotion) == (entry.identity, entry.emotion)
        another = next(other for other in entries if other.key == nearest_training_clip(config, seen))
        assert another.identity != entry.identity
    figures = rows(run_suite(config, tmp_path))
    assert list(figures) == ["still portrait", NEAREST_CLIP, "SVP", "truth"]
    assert figures[NEAREST_CLIP]["psnr"] < figures["still portrait"]["psnr"]  # another person's face


def test_a_short_clip_plays_to_and_fro():
    frames = np.arange(3)[:, None, None, None]
    assert played(frames, 8).ravel().tolist() == [0, 1, 2, 1, 0, 1, 2, 1]
    assert played(frames, 2).ravel().tolist() == [0, 1]


def test_without_other_people_to_train_on_the_cure_is_named(tmp_path):
    prepare(
        None, tmp_path, PrepareConfig(OutputOptions(size=64, seconds=1.6), synthetic=SyntheticOptions(0, 1, 1, seed=4))
    )
    config = suite(tmp_path, "reconstruction", systems=SYSTEMS[:1])
    clip = read_clip(config, list_jobs(config)[0].id, 64)
    with pytest.raises(PortraitError, match="0 other people: leave 'nearest training clip' out"):
        nearest_training_clip(config, clip)


@pytest.mark.slow
def test_every_kind_of_style_gives_another_clip(dataset, tmp_path):
    styles = ("sampled", "mean", "none", "voice", "face", "other emotion")
    systems = tuple(SystemConfig(style, style=style) for style in styles)
    found = rows(run_suite(suite(dataset, "style_transfer", systems=systems, baselines=(), frames=8), tmp_path))
    assert len({found[style]["psnr"] for style in styles}) == len(styles)


def test_clips_are_of_the_test_split_and_spread_over_it(dataset):
    every = list_jobs(suite(dataset, "style_transfer", clips=0))
    assert len(every) == 6 and [job.id for job in every] == sorted(job.id for job in every)
    some = list_jobs(suite(dataset, "style_transfer", clips=3))
    assert [job.id for job in some] == [every[0].id, every[2].id, every[4].id]
    with pytest.raises(PortraitError, match="there is no|no manifest|missing"):
        list_jobs(suite(dataset / "nowhere", "style_transfer"))


def test_a_suite_file_of_models(dataset, tmp_path):
    text = f"""
name = "drawn"
protocol = "style_transfer"
dataset = "{dataset}"
baselines = ["warped portrait"]
[[systems]]
name = "fast"
steps = 1
[networks]
syncnet = "weights/syncnet_v2.model"
"""
    (tmp_path / "suite.toml").write_text(text)
    config = read_suite(tmp_path / "suite.toml")
    assert config.rows == ("warped portrait", "fast", "truth")
    assert config.networks.syncnet == str(tmp_path / "weights" / "syncnet_v2.model")
    assert config.systems[0].steps == 1 and config.systems[0].style == "sampled"
    with pytest.raises(PortraitError, match=r"syncnet_v2.model: there is no such file"):
        run_suite(config, tmp_path / "work")
