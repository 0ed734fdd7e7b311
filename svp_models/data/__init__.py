"""Training data: videos or synthetic people -> cropped, labelled clips in WebDataset shards with a manifest; and reading them.

A clip is one continuous segment of one shot that shows one face, 1.6 s to `--seconds` long, 25 fps, `size` x `size` pixels.

Shards: `OUT/train-000000.tar`, ..., `OUT/test-000000.tar`, ...: plain tar (USTAR, no compression) in WebDataset's convention.
Members are named KEY.EXTENSION, the key has no dots, all members of a sample lie side by side. The samples are ordered by a
hash of their keys: shuffled, and the same however the work was distributed. Members of a sample:

| member         | content                                                                                               |
|----------------|-------------------------------------------------------------------------------------------------------|
| `video.mp4`    | H.264, yuv420p BT.709, 25 fps, a key frame every 12 frames, no audio; synthetic takes have none         |
| `audio.flac`   | 16 kHz mono, 16 bit, exactly 640 samples per frame; sample 0 is the beginning of frame 0                |
| `labels.npz`   | arrays by frame, see `schema.ClipLabels`                                                                |
| `motion.npz`   | optional: the motion in LivePortrait's space, see `schema.ClipMotion`                                   |
| `json`         | person, content and source, see `schema.ClipInfo`                                                       |
| `features.npy` | optional: float16 features of an audio encoder, (frames x feature_rows) x F, row order as the encoder's |

`OUT/manifest.json`: versions, options, totals, what was skipped, and of every shard its name, split, size, SHA-256 and samples,
each with the position of every member in the tar (`manifest.Manifest`): one member is read with one seek (`shards.read_member`).

No person has clips in both splits. While a preparation runs, `OUT/work` holds what is finished: repeated with the same options
it resumes there, and the shards come out byte for byte the same, wherever it was interrupted and however many processes ran.
"""
