from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media import images as module
from svp_portrait.svp_models.media.images import (
    ImageBuffer,
    load_images,
    median_filter,
    median_filter_frames,
    png_text,
    save_png,
)

RAMP = np.linspace(0, 1, 64, dtype=np.float32).reshape(4, 16)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n/x { } def\nshowpage\n%%EOF\n"
HEIC_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)


@pytest.mark.parametrize("largest", [1.0, 1.5, 255.0, 65535.0])
def test_floats_are_shares_of_what_is_white(tmp_path, largest):
    white = 1.0 if largest < 2 else largest
    Image.fromarray(RAMP * largest).save(tmp_path / "a.tif")
    images, masks = load_images(tmp_path / "a.tif")
    expected = np.clip(RAMP * largest / white, 0, 1)
    assert np.abs(images[0] - expected[..., None]).max() < 1e-6 and not masks.any()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_steps(tmp_path, suffix):
    steps = np.arange(64, dtype=np.uint16).reshape(4, 16) * 1040
    Image.fromarray(steps).save(tmp_path / f"a.{suffix}")
    images, _ = load_images(tmp_path / f"a.{suffix}")
    assert np.abs(images[0, ..., 0] - steps / 65535).max() < 1e-6


def test_floats_that_are_not_finite_are_refused(tmp_path):
    Image.fromarray(np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(PortraitError, match="a.tif: the image holds numbers that are not finite"):
        load_images(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["x.png", "x.eps", "x.jpg", "x.pdf"])
def test_no_other_program_is_asked_to_open_a_file(tmp_path, monkeypatch, name):
    monkeypatch.setattr("subprocess.check_call", lambda *args, **kwargs: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.Popen", lambda *args, **kwargs: pytest.fail("a program was started"))
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(PortraitError, match=rf"{name}: cannot be read as an image \(cannot identify"):
        load_images(tmp_path / name)


def test_heic_names_its_cure(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("svp_portrait.svp_models.media.images.find_spec", lambda name: None)
    (tmp_path / "p.jpg").write_bytes(HEIC_HEAD)
    with pytest.raises(
        PortraitError, match="p.jpg: it is a HEIC image: .*pip install pillow-heif.* or export it as JPEG"
    ):
        load_images(tmp_path / "p.jpg")


def test_a_huge_picture_is_one_line(tmp_path):
    Image.new("1", (20000, 9000)).save(tmp_path / "a.png")  # 180 million pixels in a few kB
    with pytest.raises(PortraitError, match="a.png: the image is too large .*180000000 pixels.* make it smaller"):
        load_images(tmp_path / "a.png")


def test_the_content_counts_and_not_the_name(tmp_path):
    Image.new("RGB", (6, 3), (255, 0, 0)).save(tmp_path / "a.jpg", format="PNG")
    assert load_images(tmp_path / "a.jpg")[0][0, 0, 0].tolist() == [1, 0, 0]


def test_animated_pictures_give_all_their_frames(tmp_path):
    frames = [Image.new("RGB", (6, 3), (60 * index, 0, 0)) for index in range(4)]
    for name in ("a.gif", "a.png", "a.webp"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        images, _ = load_images(tmp_path / name)
        assert (images[:, 0, 0, 0] * 255).round().tolist() == [0, 60, 120, 180]


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.tif", "a.webp", "a.bmp"])
def test_damaged_pictures_are_one_line(tmp_path, name):
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    generator = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole[: generator.integers(1, len(whole))] if generator.random() < 0.3 else whole)
        for place in generator.integers(0, min(len(damaged), 200), 4):
            damaged[place] = generator.integers(0, 256)
        (tmp_path / name).write_bytes(damaged)
        try:
            images, _ = load_images(tmp_path / name)
            assert np.isfinite(images).all() and 0 <= images.min() and images.max() <= 1
        except PortraitError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10


def test_texts_are_stored_in_png(tmp_path):
    save_png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8), {"prompt": '{"1": "ä表"}'})
    assert png_text(tmp_path / "a.png", "prompt") == '{"1": "ä表"}'
    assert png_text(tmp_path / "a.png", "workflow") is None
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def filled(rows: torch.Tensor, count: int, folder: str) -> torch.Tensor:
    images = ImageBuffer(count, rows.shape[1:], folder)
    for row in rows:
        images.add(row)
    return images.tensor()


@pytest.mark.parametrize("limit", [0, 2**30])
@pytest.mark.parametrize("count", [3, 20, 50])
def test_rows_come_back_in_memory_and_from_a_file(tmp_path, monkeypatch, limit, count):
    monkeypatch.setattr(module, "MAX_IN_MEMORY", limit)
    rows = torch.rand(20, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filled(rows, count, str(tmp_path / "temp")), rows)  # whatever was expected
    assert not list((tmp_path / "temp").iterdir())  # a file without a name


def test_what_fits_nowhere_is_refused_with_numbers(tmp_path):
    with pytest.raises(
        PortraitError, match=r"1000000 frames of 4096 x 4096 pixels take 201326.6 GB .* GB of memory and .* GB of disk"
    ):
        ImageBuffer(1_000_000, (4096, 4096, 3), str(tmp_path))


def test_a_full_disk_is_no_matter_where_memory_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_IN_MEMORY", 0)
    monkeypatch.setattr(module, "SPARE", 0)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    rows = torch.rand(2, 4, 5, 3)
    assert torch.equal(filled(rows, 2, str(tmp_path)), rows)
    monkeypatch.setattr(module, "free_memory", lambda: 100.0)
    with pytest.raises(PortraitError, match="0.0 GB of memory and 0.0 GB of disk"):
        ImageBuffer(2, (4, 5, 3), str(tmp_path))


def by_hand(frames: torch.Tensor) -> torch.Tensor:
    """The definition: each value's neighbours one by one, indices reflected at the ends."""

    def reflected(index: int, length: int) -> int:
        return 0 if length == 1 else -index if index < 0 else 2 * (length - 1) - index if index >= length else index

    length, channels, height, width = frames.shape
    result = torch.empty_like(frames)
    steps = (-1, 0, 1)
    for f in range(length):
        for y in range(height):
            for x in range(width):
                around = [
                    frames[reflected(f + i, length), :, reflected(y + j, height), reflected(x + k, width)]
                    for i in steps
                    for j in steps
                    for k in steps
                ]
                result[f, :, y, x] = torch.stack(around).sort(dim=0).values[13]
    return result


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 2, 3, 4), (2, 1, 4, 2), (3, 1, 1, 5), (6, 2, 4, 5)])
def test_every_value_is_the_median_of_its_27_neighbours(shape):
    frames = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(median_filter(frames), by_hand(frames))


def test_bytes_stay_bytes():
    frames = torch.randint(0, 256, (4, 3, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert median_filter(frames).dtype == torch.uint8 and torch.equal(median_filter(frames), by_hand(frames))


def test_a_flash_disappears_and_an_edge_stays():
    frames = torch.zeros(5, 1, 6, 6)
    frames[..., 3:] = 1.0
    clean = frames.clone()
    frames[2, 0, 2, 1] = 1.0
    assert torch.equal(median_filter(frames), clean)


def test_frames_are_taken_one_ahead():
    taken = []

    def source():
        for index in range(5):
            taken.append(index)
            yield torch.full((1, 2, 2), float(index))

    filtered = median_filter_frames(source())
    next(filtered)
    assert taken == [0, 1, 2]
    assert len(list(filtered)) == 4
    assert list(median_filter_frames([])) == []


def test_the_same_tensor_twice_is_two_frames():
    frame = torch.rand(1, 3, 3, generator=torch.Generator().manual_seed(2))
    assert len(list(median_filter_frames([frame, frame]))) == 2
