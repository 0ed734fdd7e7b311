"""Runs the jobs of a preparation in this process, in several processes of this machine, or on a Ray cluster.

A job is one video or one synthetic person. The result of a finished job waits in `OUT/work` until all jobs are finished.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from ..errors import PortraitError
from ..optional_deps import cv2
from ..signals import NUMBERS
from .extract import Preprocessors, load_preprocessors, video_clips
from .manifest import SampleEntry, entry_from, read_record, write_json
from .schema import PrepareConfig, Sample, Skipped
from .shards import TarWriter
from .sources import Source
from .synthetic_clips import SyntheticPerson, synthetic_clips

LOCAL_RAY = "local"  # instead of an address: a Ray of this machine's own

Job = Source | SyntheticPerson


@dataclass(frozen=True)
class JobContext:
    """What all jobs share. root: the folder of the videos; root, work and models have to be visible to every machine."""

    root: Path
    config: PrepareConfig
    work: Path
    models: tuple[Path, ...]


@dataclass(frozen=True)
class JobResult:
    """What a finished job gave: the samples in the tar at `path`, each with its split, and what was skipped."""

    path: Path
    samples: tuple[tuple[str, SampleEntry], ...]
    skipped: tuple[Skipped, ...]


def run_jobs(
    context: JobContext,
    jobs: Sequence[Job],
    processes: int,
    ray: str = "",
    check_stop: Callable[[], None] = lambda: None,
) -> Generator[str, None, None]:
    """Runs all jobs; yields the id of each when it is finished. ray: an address, LOCAL_RAY, or "" for processes. check_stop:
    called after each clip that this process makes; it may raise to stop."""
    if not ray and processes < 2:
        return (run_job(context, job, check_stop) for job in jobs)
    return map_jobs(partial(run_job, context), jobs, processes, ray)


def map_jobs(
    work: Callable[[Any], str], jobs: Sequence[Any], processes: int, ray: str = ""
) -> Generator[str, None, None]:
    """Calls work(job) for all jobs; yields what it returns as soon as it does. Both have to be picklable.

    ray: an address, LOCAL_RAY, or "" for `processes` processes of this machine, one thread each; with one it is this process.
    """
    if ray:
        return _on_ray(work, jobs, processes, ray)
    if processes < 2:
        return (work(job) for job in jobs)
    return _in_processes(work, jobs, processes)


def run_job(context: JobContext, job: Job, check_stop: Callable[[], None] = lambda: None) -> str:
    """Runs a job and returns its id: its clips go into `work/ID.tar`, and last `work/ID.json` says that it is finished."""
    samples, skipped, work = [], [], context.work
    scratch = work / f".{job.id}.{uuid.uuid4().hex}.part"  # for a clip's video before it goes into the tar
    scratch.mkdir()
    try:
        with TarWriter(work / f"{job.id}.tar") as tar:
            for clip in _clips_of(job, context, scratch):
                check_stop()
                if isinstance(clip, Skipped):
                    skipped.append(asdict(clip))
                    continue
                info = clip.info
                members = tar.add_sample(clip.key, clip.members.items())
                entry = SampleEntry(
                    clip.key, info.identity, info.emotion, info.intensity, info.frames, info.group, members
                )
                samples.append({"split": info.split, **asdict(entry)})
        write_json(work / f"{job.id}.json", {"samples": samples, "skipped": skipped})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return job.id


def _clips_of(job: Job, context: JobContext, scratch: Path) -> Iterator[Sample | Skipped]:
    preprocessors = _preprocessors(context.config, context.models)
    if isinstance(job, SyntheticPerson):
        return synthetic_clips(job, context.config, preprocessors, scratch)
    return video_clips(context.root, job, context.config, preprocessors, scratch)


@lru_cache(maxsize=1)
def _preprocessors(config: PrepareConfig, models: tuple[Path, ...]) -> Preprocessors:
    """Loaded once in each process."""
    return load_preprocessors(config, models)


def finished_job(job: Job, work: Path) -> JobResult | None:
    """The result of a job, None if it is not finished."""
    record = read_record(work / f"{job.id}.json")
    path = work / f"{job.id}.tar"
    if record is None or not path.is_file():
        return None
    samples, size = [], path.stat().st_size
    try:
        for values in record["samples"]:
            split = values.pop("split")
            samples.append((split, entry_from(values, path.name, size)))
        skipped = tuple(Skipped(**values) for values in record["skipped"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PortraitError(
            f"{work / job.id}.json: it is damaged ({error}): remove it and repeat the command"
        ) from error
    return JobResult(path, tuple(samples), skipped)


def _in_processes(work: Callable[[Any], str], jobs: Sequence[Any], processes: int) -> Generator[str, None, None]:
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit the threads' locks but not the threads
    with _hangup_ignored():
        pool = ProcessPoolExecutor(min(processes, max(1, len(jobs))), spawn, _start_process)
    try:
        for done in as_completed([pool.submit(work, job) for job in jobs]):
            yield done.result()
    except BrokenProcessPool as error:
        raise PortraitError(
            "a process died, probably because memory ran out: repeat the command with fewer --jobs, it resumes where it stopped"
        ) from error
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.kill()  # an interrupted video is started again anyway
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _hangup_ignored() -> Iterator[None]:
    """The process that counts a pool's semaphores ignores Ctrl-C and SIGTERM, but a closed terminal would end it before the
    processes that still use it. A process inherits the signals that are ignored when it is started."""
    if not hasattr(signal, "SIGHUP") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def _start_process() -> None:
    """Signals reach the whole group: the parent ends its processes, and they end with it if it was killed."""
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


class _RayActor:
    """An actor of Ray Data."""

    def __init__(self, work: Callable[[Any], str], jobs: Sequence[Any]) -> None:
        _use_one_thread()
        self.work, self.jobs = work, jobs

    def __call__(self, row: dict[str, int]) -> dict[str, str]:
        return {"job": self.work(self.jobs[row["id"]])}


def _on_ray(
    work: Callable[[Any], str], jobs: Sequence[Any], processes: int, address: str
) -> Generator[str, None, None]:
    if not jobs:
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
        ray.init(**({"num_cpus": processes} if address == LOCAL_RAY else {"address": address}), log_to_driver=False)
    try:
        rows = data.range(len(jobs), override_num_blocks=len(jobs))  # column `id`
        done = rows.map(_RayActor, fn_constructor_args=(work, jobs), concurrency=processes, num_cpus=1)
        for row in done.iter_rows():
            yield row["job"]
    finally:
        if own:
            ray.shutdown()
