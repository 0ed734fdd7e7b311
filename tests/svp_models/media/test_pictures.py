from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media.images import load_images, png_text, save_png

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
