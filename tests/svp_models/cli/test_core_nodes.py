from __future__ import annotations

import errno
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from svp_portrait.svp_models.cli.core_nodes import core_nodes
from svp_portrait.svp_models.cli.folders import Folders
from svp_portrait.svp_models.cli.schema import read_spec
from svp_portrait.svp_models.errors import PortraitError


@pytest.fixture
def folders(tmp_path):
    for name in ("in", "out", "tmp"):
        (tmp_path / name).mkdir()
    return Folders(tmp_path / "in", tmp_path / "out", tmp_path / "tmp")


@pytest.fixture
def nodes(folders):
    return {read_spec(node).node_id: node for node in core_nodes(folders)}


def clip(frames: int = 7, height: int = 48, width: int = 64) -> torch.Tensor:
    ramp = torch.linspace(0, 1, frames)[:, None, None, None]
    return ramp.expand(frames, height, width, 3)


def tone(seconds: float, rate: int = 24000) -> dict:
    return {"waveform": 0.3 * torch.sin(torch.arange(int(seconds * rate)) * 0.1)[None, None], "sample_rate": rate}


def test_video_round_trip_keeps_frames_rate_and_sound(nodes, folders):
    made = nodes["CreateVideo"].execute(images=clip(), fps=25.0, audio=tone(0.28)).args[0]
    saved = (
        nodes["SaveVideo"].execute(video=made, filename_prefix="v/clip", format="auto", codec="auto").ui["images"][0]
    )
    assert saved == {"filename": "clip_00001_.mp4", "subfolder": "v", "type": "output"}
    name = "v/clip_00001_.mp4 [output]"
    assert nodes["LoadVideo"].validate_inputs(file=name) is True
    video = nodes["LoadVideo"].execute(file=name).args[0]
    images, audio, fps = nodes["GetVideoComponents"].execute(video=video).args
    assert images.shape == (7, 48, 64, 3) and images.dtype == torch.float32
    assert fps == 25.0
    assert (images - clip()).abs().max() < 0.05
    assert audio["waveform"].shape[:2] == (1, 1) and audio["sample_rate"] == 24000
    assert audio["waveform"].shape[-1] / 24000 == pytest.approx(0.28, abs=0.02)
    loud = nodes["LoadAudio"].execute(audio=name).args[0]
    assert torch.equal(loud["waveform"], audio["waveform"])


def test_create_video_keeps_ntsc_rates_exact(nodes):
    video = nodes["CreateVideo"].execute(images=clip(), fps=30000 / 1001).args[0]
    assert video.get_components().frame_rate == Fraction(30000, 1001)
    assert video.get_components().audio is None


def test_saving_no_frames_is_refused_and_leaves_nothing(nodes, folders):
    empty = nodes["CreateVideo"].execute(images=clip(0), fps=25.0).args[0]
    with pytest.raises(PortraitError, match="no frames"):
        nodes["SaveVideo"].execute(video=empty, filename_prefix="x", format="auto", codec="auto")
    assert list(folders.output.rglob("*")) == []


def test_image_round_trip(nodes, folders):
    picture = torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    saved = nodes["SaveImage"].execute(images=picture, filename_prefix="p").ui["images"]
    assert [each["filename"] for each in saved] == ["p_00001_.png", "p_00002_.png"]
    image, mask = nodes["LoadImage"].execute(image="p_00002_.png [output]").args
    assert (image - picture[1:]).abs().max() <= 0.5 / 255 + 1e-6
    assert mask.shape == (1, 64, 64) and not mask.any()
    assert [each.name for each in sorted(folders.output.iterdir())] == ["p_00001_.png", "p_00002_.png"]


def test_previews_go_to_the_temp_folder(nodes, folders):
    assert nodes["PreviewImage"].execute(images=clip(1)).ui["images"][0]["type"] == "temp"
    assert not list(folders.output.iterdir()) and len(list(folders.temp.iterdir())) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_never_become_a_file(nodes, folders, value):
    bad = clip(40).clone()
    bad[35, 3, 4, 1] = value
    with pytest.raises(PortraitError, match="frame 35 of the images holds numbers that are not finite"):
        nodes["SaveImage"].execute(images=bad, filename_prefix="p")
    made = nodes["CreateVideo"].execute(images=bad, fps=25.0).args[0]
    with pytest.raises(PortraitError, match="frame 35 of the images holds numbers that are not finite"):
        nodes["SaveVideo"].execute(video=made, filename_prefix="x", format="auto", codec="auto")
    with pytest.raises(PortraitError, match="the latents of frame 1 hold"):
        nodes["VAEDecode"].execute(samples={"samples": torch.tensor([0.0, value]).expand(4, 2).T}, vae=None)
    assert list(folders.output.iterdir()) == []


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "LA", "1", "I;16", "CMYK"])
def test_every_kind_of_picture_becomes_rgb(nodes, folders, mode):
    path = folders.input / ("x.tif" if mode == "CMYK" else "x.png")
    if mode == "I;16":
        Image.fromarray(np.full((3, 6), 128 * 256, np.uint16)).save(path)
    else:
        Image.new("RGB", (6, 3), (128, 128, 128)).convert(mode).save(path)
    image, mask = nodes["LoadImage"].execute(image=path.name).args
    assert image.shape == (1, 3, 6, 3) and image.dtype == torch.float32
    if mode not in ("1", "P"):  # dithered
        assert (image - 128 / 255).abs().max() < 0.01
    assert mask.shape == ((1, 3, 6) if "A" in mode else (1, 64, 64))


def test_transparency_and_rotation_of_a_picture(nodes, folders):
    pixels = np.zeros((2, 3, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    Image.fromarray(pixels).save(folders.input / "a.png")
    image, mask = nodes["LoadImage"].execute(image="a.png").args
    assert image[0, 0, 0].tolist() == [1, 0, 0]
    assert mask[0, 0, 0] == 0 and mask[0, 1, 1] == 1
    turned = Image.new("RGB", (6, 3))
    exif = turned.getexif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    turned.save(folders.input / "b.jpg", exif=exif)
    assert nodes["LoadImage"].execute(image="b.jpg").args[0].shape == (1, 6, 3, 3)


def test_broken_and_missing_pictures(nodes, folders):
    (folders.input / "x.png").write_bytes(b"no picture")
    with pytest.raises(PortraitError, match="cannot be read as an image"):
        nodes["LoadImage"].execute(image="x.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(folders.input / "y.png")
    whole = (folders.input / "y.png").read_bytes()
    (folders.input / "y.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PortraitError, match="cannot be read as an image"):
        nodes["LoadImage"].execute(image="y.png")
    assert "no image file 'z.png'" in nodes["LoadImage"].validate_inputs(image="z.png")


def test_a_full_disk_leaves_no_picture(nodes, folders, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(PortraitError, match="p_00001_.png: the image cannot be written .No space left on device."):
        nodes["SaveImage"].execute(images=clip(1), filename_prefix="p")
    assert list(folders.output.iterdir()) == []


def test_the_vae_nodes_pass_through_the_vae(nodes):
    class Vae:
        def encode(self, pixels):
            return pixels.movedim(-1, 1)

        def decode(self, samples):
            return samples.movedim(1, -1)[None]  # b f h w c, as video VAEs do

    picture = clip(3)
    latent = nodes["VAEEncode"].execute(pixels=picture, vae=Vae()).args[0]
    assert torch.equal(nodes["VAEDecode"].execute(samples=latent, vae=Vae()).args[0], picture)


@pytest.mark.parametrize("method", ["nearest-exact", "bilinear", "area", "bicubic", "lanczos"])
def test_pictures_are_scaled(nodes, method):
    given = {"image": clip(3), "upscale_method": method, "crop": "disabled"}
    scaled = nodes["ImageScale"].execute(width=96, height=30, **given).args[0]
    assert scaled.shape == (3, 30, 96, 3) and (scaled[:, 0, 0, 0] - clip(3)[:, 0, 0, 0]).abs().max() < 1 / 255
    assert nodes["ImageScale"].execute(width=0, height=24, **given).args[0].shape == (3, 24, 32, 3)
    assert nodes["ImageScale"].execute(width=0, height=0, **given).args[0] is given["image"]


def test_scaling_to_another_aspect_can_keep_the_middle(nodes):
    wide = torch.zeros(1, 10, 40, 3)
    wide[:, :, 15:25] = 1
    square = {"image": wide, "upscale_method": "nearest-exact", "width": 20, "height": 20}
    assert (nodes["ImageScale"].execute(crop="center", **square).args[0] == 1).all()
    whole = nodes["ImageScale"].execute(crop="disabled", **square).args[0][0, 0, :, 0]
    assert whole.sum() == 5
