"""Suites on small drawn videos: one table out of folders, resumed, in any number of processes, in any order."""

import json
import pickle
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.data.manifest import SampleEntry
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation import suite_clips, suite_report
from svp_portrait.svp_models.evaluation.feature_networks import FeatureNetworks
from svp_portrait.svp_models.evaluation.figures import FIGURES
from svp_portrait.svp_models.evaluation.report import report_json
from svp_portrait.svp_models.evaluation.suite import (
    TRUTH,
    SuiteConfig,
    list_jobs,
    read_suite,
    reconstruction_pair,
    style_pair,
)
from svp_portrait.svp_models.evaluation.suite_report import run_suite
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import Audio

NAMES = ("one", "below/two")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two true videos with landmarks beside them, and three systems: the same files, and some noise and more of it."""
    root = tmp_path_factory.mktemp("suite")
    for number, name in enumerate(NAMES):
        clip = make_clip(speaker(number, "test"), "happy", 3, number, seconds=1.0, size=64)
        audio = Audio(torch.from_numpy(clip.audio)[None], 16000)
        for system, strength in (("truth", 0), ("same", 0), ("noisy", 6), ("noisier", 18)):
            path = root / system / f"{name}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).normal(0, strength, clip.images.shape)
            with VideoWriter(path, 64, 64, 25, audio, crf=None) as writer:
                writer.write(np.clip(clip.images + noise, 0, 255).astype(np.uint8))
            np.savez(path.with_suffix(".landmarks.npz"), landmarks=clip.landmarks)
    return root


def suite(root, **changes) -> SuiteConfig:
    lines = {"name": "'small'", "truth": "'truth'", "protocol": "'videos'", "face_analyzer": "'none'", **changes}
    text = "\n".join(f"{key} = {value}" for key, value in lines.items())
    for system in ("same", "noisy", "noisier"):
        text += f"\n[[systems]]\nname = '{system}'\nvideos = '{system}'\n"
    path = root / "suite.toml"
    path.write_text(text)
    return read_suite(path)


def figures(report) -> dict:
    rows = report_json(report)["tables"]
    found: dict = {}
    for table in rows.values():
        for row in table["rows"]:
            found.setdefault(row["system"], {}).update(row["figures"])
    return found


@pytest.fixture(scope="module")
def measured(folder, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    return run_suite(suite(folder), work), work


def test_folders_go_in_and_one_table_comes_out(measured):
    found = figures(measured[0])
    assert list(found) == ["same", "noisy", "noisier", TRUTH]
    assert found["same"]["f_lmd"] == found["same"]["still_flicker"] == 0
    assert found["same"]["ssim"] == pytest.approx(1) and "psnr" not in found["same"]
    assert found["noisy"]["psnr"] > found["noisier"]["psnr"] + 6
    assert found["noisy"]["ssim"] > found["noisier"]["ssim"]
    assert found["same"]["voice_lag"] == found[TRUTH]["voice_lag"]
    assert measured[0].missing["fid"].startswith("pt_inception")
    table = measured[0].tables[0]
    assert table.rows[0].note == "2 clips" and "psnr" in table.rows[1].intervals


def test_the_page_has_clips_and_pictures(measured):
    titles = [section.title for section in measured[0].sections]
    worst = [f"Worst clips of {name}" for name in ("noisy", "noisier")]  # the same files have no PSNR to rank
    assert titles == ["Figures", "Clips", *worst, "Contact sheet"]
    clips = next(section for section in measured[0].sections if section.title == "Clips").clips
    assert len(clips) == 2 and clips[0].mp4[4:8] == b"ftyp"


class Embedding:
    """Stands for an ONNX network of faces: the mean colours of a picture."""

    def get_inputs(self):
        return [type("Input", (), {"name": "input"})]

    def run(self, names, values):
        return [values["input"].mean((2, 3))]


def test_a_distance_of_other_features_is_not_called_fid(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(suite_clips, "_networks", lambda config, roots: FeatureNetworks(embedding=Embedding()))
    report = run_suite(suite(folder), tmp_path)
    found = figures(report)
    assert found["same"]["embedding_distance"] == pytest.approx(0, abs=1e-9)
    assert found["same"]["identity"] > 0.9
    assert 0 < found["noisy"]["embedding_distance"] < found["noisier"]["embedding_distance"]
    assert all("fid" not in row for row in found.values())
    assert FIGURES["embedding_distance"].meaning.endswith("not FID")


def test_a_finished_clip_is_not_measured_again(folder, measured, monkeypatch):
    def fail(*args):
        raise AssertionError("measured again")

    monkeypatch.setattr(suite_clips, "measure_clip", fail)
    assert figures(run_suite(suite(folder), measured[1])) == figures(measured[0])
    with pytest.raises(AssertionError):
        run_suite(suite(folder, tolerance=3), measured[1])  # another configuration


def test_an_interrupted_run_goes_on(folder, tmp_path, monkeypatch):
    calls = []

    def some(context, job):
        calls.append(job.id)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return suite_clips.measure_job(context, job)

    monkeypatch.setattr(suite_report, "measure_job", some)
    with pytest.raises(KeyboardInterrupt):
        run_suite(suite(folder), tmp_path)
    assert len(list(tmp_path.glob("*.json"))) == 1
    monkeypatch.undo()
    done = []
    run_suite(suite(folder), tmp_path, progress=lambda *steps: done.append(steps))
    assert done == [(1, 2), (2, 2)]


def test_figures_are_the_same_in_two_processes(folder, measured, tmp_path):
    again = run_suite(suite(folder), tmp_path, processes=2)
    assert report_json(again)["tables"] == report_json(measured[0])["tables"]


class FakeRay(ModuleType):
    """As much of Ray as a suite uses, in this process; jobs finish last to first."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.address, self.stopped = {}, 0
        self.data = ModuleType("ray.data")
        self.data.range = self.range

    def is_initialized(self) -> bool:
        return False

    def init(self, log_to_driver: bool, **address) -> None:
        self.address = address

    def shutdown(self) -> None:
        self.stopped += 1

    def range(self, count: int, override_num_blocks: int) -> "FakeRay":
        self.rows = [{"id": index} for index in range(count)]
        return self

    def map(self, actor, fn_constructor_args, concurrency: int, num_cpus: int) -> "FakeRay":
        work = actor(*pickle.loads(pickle.dumps(fn_constructor_args)))  # as it travels to other machines
        self.rows = [work(row) for row in reversed(self.rows)]
        return self

    def iter_rows(self):
        return iter(self.rows)


@pytest.fixture
def fake_ray(monkeypatch):
    ray, threads = FakeRay(), torch.get_num_threads()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.data", ray.data)
    yield ray
    torch.set_num_threads(threads)


def test_figures_are_the_same_on_a_cluster_and_in_another_order(folder, measured, tmp_path, fake_ray):
    done = []
    again = run_suite(suite(folder), tmp_path, processes=3, ray="auto", progress=lambda *steps: done.append(steps))
    assert report_json(again)["tables"] == report_json(measured[0])["tables"]
    assert fake_ray.address == {"address": "auto"} and fake_ray.stopped == 1
    assert done == [(0, 2), (1, 2), (2, 2)]
    run_suite(suite(folder, tolerance=1), tmp_path, processes=3, ray="local")
    assert fake_ray.address == {"num_cpus": 3}


def test_figures_are_the_same_on_ray(folder, measured, tmp_path):
    pytest.importorskip("ray.data", reason="ray is not installed: pip install 'svp-portrait[ray]'")
    again = run_suite(suite(folder), tmp_path, processes=2, ray="local")
    assert report_json(again)["tables"] == report_json(measured[0])["tables"]


def test_without_ray_the_cure_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(PortraitError, match=r"pip install 'svp-portrait\[ray\]'"):
        run_suite(suite(folder), tmp_path, processes=2, ray="local")


def test_videos_are_encoded_again_only_when_asked(folder, tmp_path):
    config = suite(folder, reencode=40)
    found = figures(run_suite(config, tmp_path))
    assert found["same"]["psnr"] < 40


def test_the_command_writes_the_report(folder, tmp_path, capsys):
    suite(folder)
    arguments = [
        "evaluate",
        str(folder / "suite.toml"),
        "--out",
        str(tmp_path / "out"),
        "--json",
        str(tmp_path / "figures.json"),
    ]
    assert main(lambda folders, progress: [], arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "figures.json").read_text())
    assert printed["tables"]["Figures of the paper"]["rows"][0]["system"] == "same"
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_wrong_suites_are_one_line(tmp_path):
    def problem(text: str) -> str:
        (tmp_path / "suite.toml").write_text(text)
        with pytest.raises(PortraitError) as error:
            config = read_suite(tmp_path / "suite.toml")
            list_jobs(config)
        return str(error.value).removeprefix(f"{tmp_path}/suite.toml: ")

    system = "[[systems]]\nname = 'a'\n"
    assert problem("name = 'x'") == "systems is empty: name at least one under [[systems]]"
    assert problem(f"name = 'x'\n{system}") == "truth is missing: the protocol 'videos' needs a folder of videos for it"
    assert "unknown key colour" in problem(f"name = 'x'\ncolour = 1\n{system}")
    assert "unknown key speed" in problem(f"name = 'x'\n{system}speed = 1")
    assert "dataset is missing" in problem(f"name = 'x'\nprotocol = 'reconstruction'\n{system}")
    assert "twice" in problem(f"name = 'x'\ntruth = 'a'\n{system}videos = 'b'\n{system}videos = 'c'")
    assert "there is no such folder" in problem(f"name = 'x'\ntruth = 'a'\n{system}videos = 'b'")
    assert "not a suite that can be read" in problem("name = ")
    with pytest.raises(PortraitError, match="name a suite"):
        read_suite(tmp_path / "gone.toml")


def test_videos_without_a_common_name_are_refused(folder, tmp_path):
    config = suite(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "three.mp4").write_bytes(b"")
    lonely = SuiteConfig(**{**vars(config), "systems": (type(config.systems[0])("x", videos=str(tmp_path / "other")),)})
    with pytest.raises(PortraitError, match="has 2 videos, those of 'x' 1, and no name is in both"):
        list_jobs(lonely)


def entry(key: str, identity: str, emotion: str) -> SampleEntry:
    return SampleEntry(key, identity, emotion, 3, 40, key, {})


PEOPLE = [entry(f"{who}-{mood}-{take}", who, mood) for who in "abc" for mood in ("sad", "happy") for take in (1, 2)]


def test_a_style_comes_from_a_stranger_and_the_portrait_from_another_mood():
    for clip in PEOPLE:
        portrait, style, other = style_pair(clip, PEOPLE, 0)
        assert portrait.identity == clip.identity and portrait.emotion != clip.emotion
        assert style.identity != clip.identity and style.emotion == clip.emotion
        assert other.identity == style.identity and other.emotion != clip.emotion
        assert style_pair(clip, PEOPLE[::-1], 0) == (portrait, style, other)  # whatever their order
    assert len({style_pair(clip, PEOPLE, 0)[1].key for clip in PEOPLE}) > 2


def test_a_reconstruction_takes_its_own_first_frame():
    for clip in PEOPLE:
        portrait, style, other = reconstruction_pair(clip, PEOPLE, 0)
        assert portrait == clip
        assert style.key != clip.key and (style.identity, style.emotion) == (clip.identity, clip.emotion)
        assert other.identity == clip.identity and other.emotion != clip.emotion
    alone = entry("alone", "d", "sad")
    assert reconstruction_pair(alone, [*PEOPLE, alone], 0) == (alone, alone, alone)
