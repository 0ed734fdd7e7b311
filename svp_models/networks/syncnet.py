"""SyncNet (Chung and Zisserman 2016): embeds five frames of a mouth and 0.2 s of sound so that what belongs together is near.

The layers and their names are those of the published `syncnet_v2.model`.
"""

from __future__ import annotations

from torch import Tensor, nn

FRAMES, SIDE = 5, 224  # of a window, pixels of its pictures
AUDIO_ROWS = 20  # of MFCC at 100 Hz that belong to it
EMBEDDING = 1024


def convolution(kind: type[nn.Module], norm: type[nn.Module], inputs: int, outputs: int, **shape) -> list[nn.Module]:
    return [kind(inputs, outputs, **shape), norm(outputs), nn.ReLU()]


def head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, EMBEDDING))


class SyncNet(nn.Module):
    """Embeddings of length 1024 of lips and of sound."""

    def __init__(self) -> None:
        super().__init__()

        def sound(inputs: int, outputs: int, kernel=3, padding=1) -> list[nn.Module]:
            return convolution(nn.Conv2d, nn.BatchNorm2d, inputs, outputs, kernel_size=kernel, padding=padding)

        def lips(inputs: int, outputs: int, kernel=(1, 3, 3), stride=1, padding=(0, 1, 1)) -> list[nn.Module]:
            return convolution(
                nn.Conv3d, nn.BatchNorm3d, inputs, outputs, kernel_size=kernel, stride=stride, padding=padding
            )

        half = (1, 2, 2)
        self.netcnnaud = nn.Sequential(
            *sound(1, 64),
            nn.MaxPool2d(1),
            *sound(64, 192),
            nn.MaxPool2d(3, stride=(1, 2)),
            *sound(192, 384),
            *sound(384, 256),
            *sound(256, 256),
            nn.MaxPool2d(3, stride=2),
            *sound(256, 512, kernel=(5, 4), padding=0),
        )
        self.netfcaud = head()
        self.netfclip = head()
        self.netcnnlip = nn.Sequential(
            *lips(3, 96, kernel=(5, 7, 7), stride=half, padding=0),
            nn.MaxPool3d((1, 3, 3), stride=half),
            *lips(96, 256, kernel=(1, 5, 5), stride=half),
            nn.MaxPool3d((1, 3, 3), stride=half, padding=(0, 1, 1)),
            *lips(256, 256),
            *lips(256, 256),
            *lips(256, 256),
            nn.MaxPool3d((1, 3, 3), stride=half),
            *lips(256, 512, kernel=(1, 6, 6), padding=0),
        )

    def embed_audio(self, windows: Tensor) -> Tensor:
        """MFCC n 1 13 20 -> n 1024."""
        return self.netfcaud(self.netcnnaud(windows).flatten(1))

    def embed_lips(self, windows: Tensor) -> Tensor:
        """Pictures n 3 5 224 224, BGR in 0 .. 255 -> n 1024."""
        return self.netfclip(self.netcnnlip(windows).flatten(1))
