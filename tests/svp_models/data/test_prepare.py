"""Whole preparations of small trees; the built-in backend finds the drawn faces."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.data.manifest import open_manifest
from svp_portrait.svp_models.data.prepare import check, prepare
from svp_portrait.svp_models.data.schema import OutputOptions, PrepareConfig, SyntheticOptions, VideoOptions
from svp_portrait.svp_models.data.shards import decode_audio, decode_frames, decode_info, decode_labels, read_member
from svp_portrait.svp_models.errors import PortraitError

from .conftest import noise, write_video

OUTPUT = OutputOptions(size=128, shard_clips=3)
RECIPE = PrepareConfig(OUTPUT, VideoOptions(test_identities=("W009",), min_face=30))


@pytest.fixture(scope="module")
def mead(people, tmp_path_factory) -> Path:
    """Two actors, two emotions each; one film is silent with the sound beside it, one is cut, one shows nobody."""
    root = tmp_path_factory.mktemp("mead")
    images = [each.images for each in people]
    write_video(root / "M003/video/front/happy/level_3/001.mp4", images[0], 25, people[0].audio)
    write_video(root / "M003/video/front/sad/level_1/001.mp4", images[0][::-1], 25)
    sound = write_video(root / "sound.mp4", np.zeros((56, 32, 32, 3), np.uint8), 25, noise(56))
    (root / "M003/audio/sad/level_1").mkdir(parents=True)
    sound.rename(root / "M003/audio/sad/level_1/001.m4a")
    film = np.concatenate([images[1], images[0][:45, :, ::-1]])
    write_video(root / "W009/video/front/fear/level_2/003.mp4", film, 25, noise(101))
    write_video(root / "W009/video/front/angry/level_2/004.mp4", 0 * film[:50], 25, noise(50))
    return root


@pytest.fixture(scope="module")
def done(mead, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("done") / "out"
    told = []
    prepare(mead, out, RECIPE, progress=lambda count, total: told.append((count, total)))
    assert told == [(count, 4) for count in range(5)]
    return out


def files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in sorted(folder.iterdir())}


def test_a_tree_becomes_labelled_shards(done, mead, people):
    manifest = check(done)
    assert sorted(files(done)) == ["manifest.json", "test-000000.tar", "train-000000.tar"]
    totals = manifest.totals()
    assert (totals["samples"], totals["frames"]) == (4, 56 + 56 + 56 + 45)
    assert totals["by_emotion"] == {"fear": 2, "happy": 1, "sad": 1} and totals["skipped"] == {"no face": 1}
    assert {name: each["split"] for name, each in totals["by_identity"].items()} == {"M003": "train", "W009": "test"}
    assert json.loads((done / "manifest.json").read_text())["totals"] == totals
    starts = set()
    for shard, sample in manifest.samples():
        info = decode_info(read_member(done, shard, sample, "json"))
        starts.add((info.emotion, info.intensity, info.start_seconds, info.split))
        assert (mead / info.source).is_file() and info.split == shard.split
    assert starts == {
        ("happy", 3, 0.0, "train"), ("sad", 1, 0.0, "train"), ("fear", 2, 0.0, "test"), ("fear", 2, 2.24, "test"),
    }  # fmt: skip


def test_labels_and_sound_of_a_drawn_face_are_near_the_truth(done, people):
    """The crop undone: the tracked points lie on the drawn ones, and the sound is the one that was put in."""
    manifest, clip = open_manifest(done), people[0]
    shard, sample = next(each for each in manifest.samples() if each[1].emotion == "happy")
    labels = decode_labels(read_member(done, shard, sample, "labels.npz"))
    pictures = decode_frames(read_member(done, shard, sample, "video.mp4"))
    scale = np.ptp(labels.landmarks[:, :, 0], axis=1) / np.ptp(clip.landmarks[:, :, 0], axis=1)
    assert 0.9 < np.median(scale) < 1.2  # the face fills the picture already
    eyes = labels.landmarks[:, 36:48].mean(axis=1) - labels.landmarks[:, 48:60].mean(axis=1)
    true = clip.landmarks[:, 36:48].mean(axis=1) - clip.landmarks[:, 48:60].mean(axis=1)
    assert np.linalg.norm(eyes / np.median(scale) - true, axis=1).mean() < 3
    assert pictures.shape == (56, 128, 128, 3)
    heard = decode_audio(read_member(done, shard, sample, "audio.flac")).waveform[0].numpy()
    assert len(heard) == 56 * 640 and np.corrcoef(heard, clip.audio)[0, 1] > 0.95


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(done, mead, tmp_path):
    out = tmp_path / "out"

    def stop(count: int, total: int) -> None:
        if count == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(mead, out, RECIPE, progress=stop)
    kept = {each.name: each.stat().st_mtime_ns for each in (out / "work").glob("*.tar")}
    assert len(kept) == 2 and not list(out.rglob("*.part"))
    (out / "work" / ".rest.tar.123.part").write_bytes(b"half")
    told = []
    prepare(mead, out, RECIPE, progress=lambda count, total: told.append(count))
    assert told == [2, 3, 4] and files(out) == files(done)
    prepare(mead, out, RECIPE)  # finished: nothing is done again
    assert files(out) == files(done)


def as_in_0_1_0(path: Path) -> None:
    """Rewrites a record with the keys of version 0.1.0."""
    record = json.loads(path.read_text())
    if "skipped" in record:
        record["rejects"] = record.pop("skipped")
    if "options" in record:
        options = record["options"]
        record["options"] = {"output": options["output"], "films": options["videos"], "drawn": options["synthetic"]}
        record["options"]["films"].pop("limits")
    path.write_text(json.dumps(record))


def test_preparations_of_version_0_1_0_go_on(done, mead, tmp_path):
    """A finished one is taken as it is, an unfinished one is resumed; both have the earlier names of keys and files."""
    out = tmp_path / "finished"
    shutil.copytree(done, out)
    as_in_0_1_0(out / "manifest.json")
    before = files(out)
    prepare(mead, out, RECIPE)
    assert files(out) == before and check(out).totals()["samples"] == 4

    out = tmp_path / "unfinished"
    with pytest.raises(KeyboardInterrupt):
        prepare(mead, out, RECIPE, progress=lambda count, total: raise_interrupt() if count == 2 else None)
    for path in (out / "work").glob("*.json"):
        as_in_0_1_0(path)
    (out / "work" / "metadata.json").rename(out / "work" / "card.json")
    counts = []
    prepare(mead, out, RECIPE, progress=lambda count, total: counts.append(count))
    assert counts == [2, 3, 4] and files(out) == files(done)


def test_two_processes_give_the_same_bytes_as_one(done, mead, tmp_path):
    prepare(mead, tmp_path / "out", RECIPE, processes=2)
    assert files(tmp_path / "out") == files(done)


def test_a_killed_command_goes_on(done, mead, tmp_path):
    out = tmp_path / "out"
    arguments = ["prepare", str(mead), "--out", str(out), "--size", "128", "--shard-clips", "3", "--min-face", "30"]
    arguments += ["--test-identities", "W009", "--jobs", "1"]
    code = "import sys; from svp_portrait.nodes.command import main; sys.exit(main())"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None and not list((out / "work").glob("*.tar")):
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (out / "manifest.json").exists()
    prepare(mead, out, RECIPE)
    assert files(out) == files(done)


def processes_with(mark: str) -> list[int]:
    """The processes in whose environment `mark` is."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are looked for in /proc")
@pytest.mark.parametrize(("number", "to_all"), [("SIGTERM", False), ("SIGHUP", True), ("SIGKILL", False)])
def test_a_signal_ends_the_workers_too(tmp_path, number, to_all):
    """Whether it comes to the command alone or, as from a terminal, to all of its processes."""
    out, mark = tmp_path / "out", f"SVP_TEST_MARK={uuid.uuid4().hex}"
    arguments = ["prepare", "synthetic", "--out", str(out), "--size", "256", "--seconds", "8", "--jobs", "2"]
    code = "import sys; from svp_portrait.nodes.command import main; sys.exit(main())"
    environment = {**os.environ, **dict([mark.split("=")])}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, env=environment, start_new_session=True
    )
    while process.poll() is None and not list(out.glob("work/.*.part")):
        time.sleep(0.05)
    (os.killpg if to_all else os.kill)(process.pid, getattr(signal, number))
    message = process.communicate(timeout=120)[1].decode()
    until = time.monotonic() + 60
    while (left := processes_with(mark)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left
    assert process.returncode != 0 and "Traceback" not in message
    if number != "SIGKILL":  # whose leftovers the next run clears
        assert "interrupted" in message and not list(out.rglob("*.part"))


def test_one_process_at_a_time_works_on_a_folder(done, mead, tmp_path):
    out = tmp_path / "out"
    tried = []

    def second(count: int, total: int) -> None:
        if count == 1:
            code = "import sys; from svp_portrait.nodes.command import main; sys.exit(main())"
            arguments = ["prepare", str(mead), "--out", str(out), "--size", "128", "--shard-clips", "3"]
            arguments += ["--min-face", "30", "--test-identities", "W009", "--jobs", "1"]
            tried.append(subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True))

    prepare(mead, out, RECIPE, progress=second)
    assert files(out) == files(done) and tried[0].returncode == 1
    message = tried[0].stderr.splitlines()[-1]
    assert re.search(rf"work: svp prepare \(process {os.getpid()} on .*, since .*\) works in this folder", message)


def test_what_a_killed_run_has_left_is_cleared(done, mead, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        prepare(mead, out, RECIPE, progress=raise_interrupt)
    (out / "work/.abc.0123.part").mkdir()
    (out / "work/.abc.0123.part/clip.mp4").write_bytes(b"half")
    (out / ".train-000000.tar.0123.part").write_bytes(b"half")
    prepare(mead, out, RECIPE)
    assert files(out) == files(done)


def raise_interrupt(*progress: int) -> None:
    raise KeyboardInterrupt


def test_films_that_cannot_be_read_are_listed(done, mead, tmp_path):
    """One of them does not end the preparation of all others."""
    root = tmp_path / "in"
    shutil.copytree(mead, root)
    (root / "M003/gone.mp4").symlink_to(root / "nowhere")
    os.rename(
        root / "W009/video/front/fear/level_2/003.mp4", root / os.fsdecode(b"W009/video/front/fear/level_2/\xe9.mp4")
    )
    manifest = prepare(root, tmp_path / "out", RECIPE)
    assert check(tmp_path / "out").totals()["samples"] == 4
    sources = {
        decode_info(read_member(manifest.folder, shard, sample, "json")).source for shard, sample in manifest.samples()
    }
    assert r"W009/video/front/fear/level_2/\xe9.mp4" in sources
    assert {each.source: each.detail for each in manifest.skipped}["M003/gone.mp4"].startswith("a link to nothing")


def test_ray_gives_the_same_bytes(done, mead, tmp_path):
    pytest.importorskip("ray.data", reason="ray is not installed: pip install 'svp-portrait[ray]'")
    prepare(mead, tmp_path / "out", RECIPE, processes=2, ray="local")
    assert files(tmp_path / "out") == files(done)


def test_other_options_and_foreign_folders_are_refused(done, mead, tmp_path):
    other = PrepareConfig(OutputOptions(size=64, shard_clips=3), RECIPE.videos)
    with pytest.raises(PortraitError, match=r"begun with other options \(options\.output\.size: 128 there, 64 now\)"):
        prepare(mead, done, other)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(PortraitError, match="holds other files and no preparation"):
        prepare(mead, tmp_path, RECIPE)
    assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]


def test_no_clip_at_all_is_an_error_with_the_reasons(tmp_path):
    write_video(tmp_path / "in/anna/a.mp4", np.zeros((50, 64, 64, 3), np.uint8), 25, noise(50))
    with pytest.raises(
        PortraitError, match=r"none of the 1 jobs gave a clip \(skipped: no face 1; the first: anna/a.mp4"
    ):
        prepare(tmp_path / "in", tmp_path / "out", RECIPE.__class__(OUTPUT, VideoOptions()))
    assert not list((tmp_path / "out").glob("*.tar"))


def test_hdtf_and_plain_trees(people, tmp_path):
    clip = people[0]
    for name in ("WDA_AnnaBell0_000", "WDA_AnnaBell0_001", "RD_Radio7_000"):
        write_video(tmp_path / f"hdtf/{name}.mp4", clip.images, 25, clip.audio)
    films = VideoOptions(test_identities=("Radio7",), min_face=30)
    manifest = prepare(tmp_path / "hdtf", tmp_path / "out", PrepareConfig(OutputOptions(size=64), films))
    found = sorted((shard.split, sample.identity, sample.group) for shard, sample in manifest.samples())
    assert found == [("test", "Radio7", "Radio7"), *[("train", "AnnaBell", "AnnaBell0")] * 2]
    check(tmp_path / "out")


def test_drawn_people(tmp_path):
    recipe = PrepareConfig(OutputOptions(size=64, seconds=1.6), synthetic=SyntheticOptions(1, 1, 2, 3))
    manifest = check(prepare(None, tmp_path / "out", recipe).folder)
    samples = manifest.samples()
    assert [(shard.split, sample.identity, sample.frames) for shard, sample in samples] == [
        *[("train", "train-00000", 40)] * 2,
        *[("test", "test-00000", 40)] * 2,
    ]
    assert len({sample.emotion for _, sample in samples[:2]}) == 2
    info = decode_info(read_member(manifest.folder, *samples[0], "json"))
    assert info.text and info.intensity in (1, 2, 3) and not info.unknown


def test_the_version_of_the_pictures_is_an_option_and_old_records_mean_the_first(tmp_path):
    drawn = PrepareConfig(OutputOptions(size=64, seconds=1.6), synthetic=SyntheticOptions(1, 0, 1, 3))
    natural = PrepareConfig(OutputOptions(size=64, seconds=1.6), synthetic=SyntheticOptions(1, 0, 1, 3, version=2))
    frames, versions = [], []
    for name, recipe in (("drawn", drawn), ("natural", natural)):
        manifest = check(prepare(None, tmp_path / name, recipe).folder)
        frames.append(decode_frames(read_member(manifest.folder, *manifest.samples()[0], "video.mp4")))
        versions.append(manifest.metadata["synthetic"])
    assert versions[0] == "1" and versions[1].startswith("2")
    assert np.abs(frames[0].astype(int) - frames[1]).mean() > 10
    record = tmp_path / "drawn/manifest.json"
    content = json.loads(record.read_text())
    del content["options"]["synthetic"]["version"]  # as it was before there were two
    record.write_text(json.dumps(content))
    prepare(None, tmp_path / "drawn", drawn)  # finished already
    with pytest.raises(PortraitError, match="begun with other options"):
        prepare(None, tmp_path / "drawn", natural)


def test_takes_are_clips_without_pictures_of_the_same_person_and_manner(tmp_path):
    recipe = PrepareConfig(OutputOptions(size=64, seconds=1.6), synthetic=SyntheticOptions(1, 0, 2, 3, takes=2))
    manifest = prepare(None, tmp_path / "out", recipe)
    check(tmp_path / "out")
    samples = [sample for _, sample in manifest.samples("train")]
    pictured = [each for each in samples if "video.mp4" in each.members]
    assert len(samples) == 6 and len(pictured) == 2
    for clip in pictured:
        takes = [each for each in samples if each.key.startswith(f"{clip.key}-")]
        assert len(takes) == 2 and len({each.group for each in [clip, *takes]}) == 3
        assert {(each.identity, each.emotion, each.intensity) for each in takes} == {
            (clip.identity, clip.emotion, clip.intensity)
        }
