"""Who does the units: this process, several of this machine, or a Ray cluster; all of them run the same function.

The unit of work: one film, or one drawn person. What a finished one gave waits in `OUT/work` until all are finished.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from ..errors import PortraitError
from ..io.signals import NUMBERS
from ..optional_deps import cv2
from .extract import Instruments, film_clips, load_instruments
from .manifest import SampleEntry, entry_from, read_json, write_json
from .schema import Recipe, Reject, Sample
from .shards import TarWriter
from .sources import Source
from .synthetic_clips import DrawnPerson, drawn_clips

LOCAL_RAY = "local"  # instead of an address: a Ray of this machine's own


@dataclass(frozen=True)
class Job:
    """All that a worker has to know besides the unit. root, work and models have to be visible to every machine."""

    root: Path
    recipe: Recipe
    work: Path
    models: tuple[Path, ...]


def do_unit(job: Job, unit: Unit, look: Callable[[], None] = lambda: None) -> str:
    """Does a unit and returns its id; instruments are kept for the next one. look: called after each clip, may raise."""
    finish_unit(unit, job.root, job.recipe, _instruments(job.recipe, job.models), job.work, look)
    return unit.id


def do_units(
    job: Job, units: Sequence[Unit], workers: int, ray: str = "", look: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """Does all units; yields the id of each when it is finished. ray: an address, LOCAL_RAY, or "" for processes. look: called
    after each clip that this process makes; it may raise to stop."""
    if ray:
        return _on_ray(job, units, workers, ray)
    if workers < 2:
        return (do_unit(job, unit, look) for unit in units)
    return _in_processes(job, units, workers)


def _in_processes(job: Job, units: Sequence[Unit], workers: int) -> Iterator[str]:
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # a fork would inherit the threads' locks but not the threads
    with _hangup_ignored():
        pool = ProcessPoolExecutor(min(workers, max(1, len(units))), context, _start_worker)
    try:
        for done in as_completed([pool.submit(do_unit, job, each) for each in units]):
            yield done.result()
    except BrokenProcessPool as error:
        raise PortraitError(
            "a worker process died, probably because memory ran out: repeat the command with fewer --workers, it goes on "
            "where it stopped"
        ) from error
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()  # an interrupted film is begun again anyway
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _hangup_ignored() -> Iterator[None]:
    """The process that counts a pool's semaphores ignores Ctrl-C and SIGTERM, but a closed terminal would end it before those
    who still use it. What is ignored when a process is started it ignores too."""
    if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _start_worker() -> None:
    """Signals reach the whole group: the parent ends the workers, and they end with it if it was killed."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    _use_one_thread()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


@lru_cache(maxsize=1)
def _instruments(recipe: Recipe, models: tuple[Path, ...]) -> Instruments:
    return load_instruments(recipe, models)


class _RayWorker:
    """An actor of Ray Data."""

    def __init__(self, job: Job, units: Sequence[Unit]) -> None:
        _use_one_thread()
        self.job, self.units = job, units

    def __call__(self, row: dict[str, int]) -> dict[str, str]:
        return {"unit": do_unit(self.job, self.units[row["id"]])}


def _on_ray(job: Job, units: Sequence[Unit], workers: int, address: str) -> Iterator[str]:
    if not units:
        return
    try:
        ray, data = import_module("ray"), import_module("ray.data")
    except ModuleNotFoundError as error:
        raise PortraitError(
            f"--ray needs the package {error.name}, which is not installed: pip install 'svp-portrait[ray]', or leave "
            "--ray out"
        ) from error
    own = not ray.is_initialized()
    if own:
        ray.init(**({"num_cpus": workers} if address == LOCAL_RAY else {"address": address}), log_to_driver=False)
    try:
        rows = data.range(len(units), override_num_blocks=len(units))  # column `id`
        done = rows.map(_RayWorker, fn_constructor_args=(job, units), concurrency=workers, num_cpus=1)
        for row in done.iter_rows():
            yield row["unit"]
    finally:
        if own:
            ray.shutdown()


Unit = Source | DrawnPerson


@dataclass(frozen=True)
class Finished:
    """What a unit gave: its samples with their split, in the tar at `path`, and what it did not."""

    path: Path
    samples: tuple[tuple[str, SampleEntry], ...]
    rejects: tuple[Reject, ...]


def clips_of(
    unit: Unit, root: Path, recipe: Recipe, instruments: Instruments, scratch: Path
) -> Iterator[Sample | Reject]:
    """The clips of a unit; root: the folder of films, which drawn people do not need."""
    if isinstance(unit, DrawnPerson):
        return drawn_clips(unit, recipe, instruments, scratch)
    return film_clips(root, unit, recipe, instruments, scratch)


def finish_unit(
    unit: Unit,
    root: Path,
    recipe: Recipe,
    instruments: Instruments,
    work: Path,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Does a unit: its clips go into `work/ID.tar`, and last `work/ID.json` says that it is finished. look: called for each
    clip; it may raise to stop."""
    samples, rejects = [], []
    scratch = (
        work / f".{unit.id}.{uuid.uuid4().hex}.part"
    )  # where a clip's video is written before it is read into the tar
    scratch.mkdir()
    try:
        with TarWriter(work / f"{unit.id}.tar") as tar:
            for clip in clips_of(unit, root, recipe, instruments, scratch):
                look()
                if isinstance(clip, Reject):
                    rejects.append(asdict(clip))
                    continue
                info = clip.info
                members = tar.add_sample(clip.key, clip.members.items())
                entry = SampleEntry(
                    clip.key, info.identity, info.emotion, info.intensity, info.frames, info.group, members
                )
                samples.append({"split": info.split, **asdict(entry)})
        write_json(work / f"{unit.id}.json", {"samples": samples, "rejects": rejects})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def finished_unit(unit: Unit, work: Path) -> Finished | None:
    """What a unit gave, None if it is not finished."""
    record = read_json(work / f"{unit.id}.json")
    path = work / f"{unit.id}.tar"
    if record is None or not path.is_file():
        return None
    samples, size = [], path.stat().st_size
    try:
        for values in record["samples"]:
            split = values.pop("split")
            samples.append((split, entry_from(values, path.name, size)))
        rejects = tuple(Reject(**each) for each in record["rejects"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PortraitError(
            f"{work / unit.id}.json: it is damaged ({error}): remove it and repeat the command"
        ) from error
    return Finished(path, tuple(samples), rejects)
