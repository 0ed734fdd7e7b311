"""Training data on disk: films or drawn clips -> cropped, labelled clips in WebDataset shards with a manifest; and reading them.

A clip is one continuous piece of one shot that shows one face, 1.6 s to `--seconds` long, 25 fps, `size` x `size` pixels.

Shards: `OUT/train-000000.tar`, ..., `OUT/test-000000.tar`, ...: plain tar (USTAR, no compression) in WebDataset's convention.
Members are named KEY.EXT, the key has no dots, all members of a sample lie side by side. The order of the samples is that of
a hash of their keys: mixed, and the same however the work was shared out. Members of a sample:

| member         | content                                                                                               |
|----------------|-------------------------------------------------------------------------------------------------------|
| `video.mp4`    | H.264, yuv420p BT.709, 25 fps, a key frame every 12 frames, no sound; drawn takes have none             |
| `audio.flac`   | 16 kHz mono, 16 bit, exactly 640 samples a frame; sample 0 is the beginning of frame 0                  |
| `labels.npz`   | arrays by frame, see `format.ClipLabels`                                                                |
| `json`         | who, what and where from, see `format.ClipInfo`                                                         |
| `features.npy` | optional: float16 features of an audio encoder, (frames x feature_rows) x F, row order as the encoder's |

`OUT/manifest.json`: versions, options, totals, rejects, and of every shard its name, split, size, SHA-256 and samples, each
with the place of every member in the tar (`manifest.Manifest`): one member is read with one seek (`reading`).

No identity has clips in both splits. While a preparation runs, `OUT/work` holds what is finished: repeated with the same
options it goes on there, and the shards come out byte for byte the same, whatever was interrupted and however many workers
took part.
"""
