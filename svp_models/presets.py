"""The configurations of the models that come with the pack, by name."""

from __future__ import annotations

from .config import (
    AudioConfig,
    FaceCropConfig,
    GuiderConfig,
    ModelConfig,
    SchedulerConfig,
    StyleConfig,
    UNetConfig,
    VaeConfig,
)

PRESETS: dict[str, ModelConfig] = {
    "demo": ModelConfig(
        name="demo",
        size=128,
        window=6,
        overlap=2,
        residual=True,
        steps=1,
        cfg=1.0,
        unet=UNetConfig(
            latent_channels=48,
            block_out_channels=(56, 72, 96),
            layers_per_block=1,
            attention_levels=(False, True, True),
            attention_heads=4,
            cross_attention_dim=128,
            norm_groups=8,
            reference_concat=True,
            reference_warp=True,
            condition_embedding=True,
            motion_heads=4,
            motion_groups=8,
            motion_positions=32,
        ),
        vae=VaeConfig(
            kind="portrait",
            latent_channels=48,
            scale=1.0,
            fold=4,
            encoder_widths=(24, 48),
            decoder_widths=(96, 64, 24),
            layers=2,
        ),
        guider=GuiderConfig(channels=(8, 16, 32, 64)),
        audio=AudioConfig(features="mel", window=3, tokens=5, layers=2, heads=4, head_size=32),
        style=StyleConfig(style_size=128, layers=2, heads=4, feed_forward=512, max_frames=40),
        scheduler=SchedulerConfig(prediction="sample"),
    ),
    "demo256": ModelConfig(
        name="demo256",
        size=256,
        window=12,
        overlap=4,
        residual=True,
        guide_portrait=False,
        shared_noise=1.0,
        steps=8,
        cfg=1.0,
        unet=UNetConfig(
            latent_channels=64,
            block_out_channels=(96, 128, 160),
            layers_per_block=1,
            attention_levels=(False, True, True),
            attention_heads=4,
            cross_attention_dim=128,
            norm_groups=8,
            reference_concat=True,
            reference_warp=True,
            condition_embedding=True,
            expression_size=68,
            motion_heads=4,
            motion_groups=8,
            motion_positions=32,
        ),
        vae=VaeConfig(
            kind="portrait",
            latent_channels=64,
            scale=1.0,
            fold=8,
            encoder_widths=(64,),
            decoder_widths=(128, 64, 32),
            layers=2,
        ),
        guider=GuiderConfig(channels=(8, 16, 32, 64)),
        audio=AudioConfig(features="mel", window=3, tokens=5, layers=2, heads=4, head_size=32),
        style=StyleConfig(style_size=128, layers=2, heads=4, feed_forward=512, max_frames=40),
        scheduler=SchedulerConfig(
            prediction="sample"
        ),  # 64 channels of noise do not pass through 96 of the first level
        face_crop=FaceCropConfig(
            112, 120, centre=(0.0, 0.32, 0.3), mask_width=32, expression_warp=True, paint_mouth=True, dense_width=24
        ),
    ),
    "sd15": ModelConfig(
        name="sd15",
        overlap=6,
        unet=UNetConfig(style_width=320),  # sixteen tokens need no more, and style layers stay small
        scheduler=SchedulerConfig(),
    ),
    "vexpress": ModelConfig(
        name="vexpress",
        fps=30.0,
        keypoints="vexpress3",
        reference_weight=0.95,
        audio_weight=3.0,
        unet=UNetConfig(style_width=320),
        audio=AudioConfig(features="wav2vec2", feature_size=768, window=10, rows_per_frame=2),
        style=StyleConfig(audio_size=768),
        scheduler=SchedulerConfig(exact_terminal=True),
    ),
}
