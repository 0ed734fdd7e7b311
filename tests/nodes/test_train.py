"""Data and training through the nodes, as the host runs them: without gradients, and cancelled at any progress."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from svp_portrait.nodes.dataset import SVPPrepareDataset, synthetic_options
from svp_portrait.nodes.host import ProgressBar, folder_paths
from svp_portrait.nodes.loaders import SVPApplyAudioEncoder, SVPLoadAudioEncoder, SVPLoadModel
from svp_portrait.nodes.training import SVPTrainStage, SVPTrainStyleExtractor
from svp_portrait.nodes.types import PreparedDataset
from svp_portrait.svp_models.data.prepare import prepare
from svp_portrait.svp_models.data.schema import OutputOptions, PrepareConfig, SyntheticOptions
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.training.recipe import ALIASES

ASSETS = Path(__file__).resolve().parents[2] / "workflows" / "assets"
ENCODER = Wav2Vec2Config(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8,) * 7, vocab_size=5,
    num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
)  # fmt: skip
DATA = {
    "source": "synthetic", "name": "few", "size": 64, "seconds": 1.6, "test_share": 0.25, "audio_encoder": "none",
    "backend": "built-in", "expression": "backend", "people": 2, "clips_per_person": 1, "seed": 3,
}  # fmt: skip
STYLE = {"name": "taught", "steps": 3, "batch": 4, "learning_rate": 1e-3, "temperature": 0.1, "seed": 0}
STAGE = {
    "name": "trained", "stage": "stage3", "steps": 5, "batch": 1, "learning_rate": 1e-3, "frames": 2, "precision": "no",
    "checkpoint_steps": 100, "seed": 0,
}  # fmt: skip


class Cancelled(BaseException):
    """As the host's own: no ordinary exception."""


@pytest.fixture(autouse=True)
def as_in_the_host(monkeypatch):
    monkeypatch.setattr(ProgressBar, "show", None)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> PreparedDataset:
    """2 + 1 drawn people with 2 clips each."""
    folder = tmp_path_factory.mktemp("data") / "drawn"
    drawn = SyntheticOptions(speakers=2, test_speakers=1, clips_per_speaker=2)
    prepare(None, folder, PrepareConfig(OutputOptions(size=64, seconds=1.6), synthetic=drawn))
    return PreparedDataset(folder)


@pytest.fixture
def cancel_after(monkeypatch):
    """Cancels when so much of so much is done; undo with None."""

    def set_to(done: int | None, of: int = 0) -> None:
        def show(*at: int) -> None:
            if at == (done, of):
                raise Cancelled

        monkeypatch.setattr(ProgressBar, "show", None if done is None else staticmethod(show))

    return set_to


def weights(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.portrait.networks.state_dict().items()}


def changed(first, second) -> set[str]:
    """The parts of the networks in which two models differ in half precision, as their files have it."""
    others = weights(second)
    return {name.split(".")[0] for name, value in weights(first).items() if not value.half().equal(others[name].half())}


def test_drawn_people_are_prepared_and_found_again(folders, cancel_after):
    cancel_after(1, 2)
    with pytest.raises(Cancelled):
        SVPPrepareDataset.execute(**DATA)
    folder = folders / "output" / "svp_data" / "few"
    assert len([*folder.glob("work/*.tar")]) == 1
    seen = []
    ProgressBar.show = staticmethod(lambda *at: seen.append(at))
    dataset, summary = SVPPrepareDataset.execute(**DATA).args
    assert dataset.folder == folder and seen == [(1, 2), (2, 2)]  # the first person was not drawn again
    assert "2 clips, 0.00 h, 2 shards" in summary and "train: 1 clips" in summary and "test: 1 clips" in summary
    stamp = (folder / "manifest.json").stat().st_mtime_ns
    assert SVPPrepareDataset.execute(**DATA).args == (dataset, summary)
    assert (folder / "manifest.json").stat().st_mtime_ns == stamp
    with pytest.raises(PortraitError, match=r"other options \(options.output.size: 64 there, 80 now\)"):
        SVPPrepareDataset.execute(**{**DATA, "size": 80})


def test_the_share_for_tests():
    assert [synthetic_options(10, 1, share, 0).test_speakers for share in (0.0, 0.01, 0.1, 0.5)] == [0, 1, 1, 5]
    assert (synthetic_options(2, 3, 0.5, 4).speakers, synthetic_options(2, 3, 0.5, 4).clips_per_speaker) == (1, 3)


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden", "C:x"])
def test_names_stay_in_their_folder(name):
    for node in (SVPPrepareDataset, SVPTrainStyleExtractor, SVPTrainStage):
        assert "cannot be a file's" in node.validate_inputs(name)
        assert node.validate_inputs("a model-2.1") is True and node.validate_inputs(None) is True


def test_a_folder_of_films_that_is_not_there_is_told_before_the_run(folders):
    (folders / "input" / "films").mkdir(parents=True)
    assert SVPPrepareDataset.validate_inputs("few", "films") is True
    assert (
        SVPPrepareDataset.validate_inputs("few", None) is SVPPrepareDataset.validate_inputs("few", "synthetic") is True
    )
    for source in ("filmz", "a\0b", "/nowhere/at/all"):
        assert "there is no folder" in SVPPrepareDataset.validate_inputs("few", source)


def test_films_of_one_person_are_enough(folders, loaded):
    """Nobody is kept for tests; the labels are the built-in analyser's."""
    films = folders / "input" / "films" / "anna"
    films.mkdir(parents=True)
    shutil.copy(ASSETS / "style_happy.mp4", films)
    before = SVPPrepareDataset.fingerprint_inputs(**{**DATA, "source": "films"})
    dataset, summary = SVPPrepareDataset.execute(**{**DATA, "source": "films", "test_share": 0.0}).args
    assert "train:" in summary and "test:" not in summary and "1 people" in summary
    trained, _ = SVPTrainStage.execute(loaded[0], dataset, **{**STAGE, "steps": 2}).args
    assert changed(loaded[0], trained) == {"denoiser", "style_projection"}
    (films / "more").mkdir()
    assert SVPPrepareDataset.fingerprint_inputs(**{**DATA, "source": "films"}) > before


def test_a_taught_extractor_is_a_model_of_its_own(folders, loaded, dataset):
    given = weights(loaded[0])
    trained, file = SVPTrainStyleExtractor.execute(loaded[0], dataset, **STYLE).args
    assert changed(loaded[0], trained) == {"style_extractor"}
    assert trained.portrait.style_space != loaded[0].portrait.style_space
    assert all(value.equal(given[name]) for name, value in weights(loaded[0]).items())
    again = SVPLoadModel.execute(file).args[0]
    assert file == "taught.safetensors" and changed(trained, again) == set()
    assert trained.portrait.metadata["step"] == "3" and trained.portrait.metadata["recipe"] == "taught"


def test_a_cancelled_training_goes_on_and_ends_the_same(folders, loaded, dataset, cancel_after):
    whole = SVPTrainStage.execute(loaded[0], dataset, **STAGE).args[0]
    parts = {**STAGE, "name": "in parts"}
    cancel_after(2, STAGE["steps"])
    with pytest.raises(Cancelled):
        SVPTrainStage.execute(loaded[0], dataset, **parts)
    run = folders / "output" / "svp_training" / "in parts" / "stage3"
    assert [path.name for path in run.glob("checkpoint-*")] == ["checkpoint-0000002.pt"]
    assert not (folders / "output" / "svp" / "in parts.safetensors").exists()
    cancel_after(None)
    trained, file = SVPTrainStage.execute(loaded[0], dataset, **parts).args
    assert changed(whole, trained) == set() and changed(loaded[0], trained) == {"denoiser", "style_projection"}
    stamp = (run / "model.safetensors").stat().st_mtime_ns
    (folders / "output" / "svp" / file).unlink()
    assert changed(trained, SVPTrainStage.execute(loaded[0], dataset, **parts).args[0]) == set()
    assert (run / "model.safetensors").stat().st_mtime_ns == stamp  # it was not trained again


def test_stage_1_learns_from_single_frames_before_anything_moves(folders, loaded, dataset):
    trained, _ = SVPTrainStage.execute(loaded[0], dataset, **{**STAGE, "stage": "stage1", "steps": 2}).args
    assert changed(loaded[0], trained) == {"denoiser", "reference", "guider"}
    phase = trained.portrait.metadata["training"]
    assert '"frames": 1' in phase and '"temporal": false' in phase


def test_another_training_needs_another_name(folders, loaded, dataset):
    trained, _ = SVPTrainStyleExtractor.execute(loaded[0], dataset, **STYLE).args
    with pytest.raises(
        PortraitError, match=r"taught was begun with .* \(settings.settings.steps: 3 there, 5 now\).*another name"
    ):
        SVPTrainStyleExtractor.execute(loaded[0], dataset, **{**STYLE, "steps": 5})
    with pytest.raises(PortraitError, match=r"taught was begun with another model.* \(model: '\w{16}' there"):
        SVPTrainStyleExtractor.execute(trained, dataset, **STYLE)
    with pytest.raises(PortraitError, match=r"\(phase: 'style' there, 'stage3' now\)"):
        SVPTrainStage.execute(loaded[0], dataset, **{**STAGE, "name": "taught"})


def test_a_training_of_version_0_1_0_goes_on(folders, loaded, dataset):
    """Its record has the earlier names of the settings, and lacks those that came later."""
    trained, file = SVPTrainStage.execute(loaded[0], dataset, **{**STAGE, "steps": 2}).args
    path = folders / "output" / "svp_training" / STAGE["name"] / "run.json"
    record = json.loads(path.read_text())
    earlier = {new: old for old, new in ALIASES.items()}
    phase = {earlier.get(key, key): value for key, value in record["settings"].items()}
    phase["settings"] = {earlier.get(key, key): value for key, value in phase["settings"].items()}
    del phase["region_margin"], phase["settings"]["log_smoothing"]
    assert {"trains", "unconditional"} < phase.keys() and "batch" in phase["settings"]
    data = record["data"]
    data["options"] = {"output": data["options"]["output"], "films": None, "drawn": data["options"]["synthetic"]}
    path.write_text(json.dumps({**record, "settings": phase, "data": data}))
    (folders / "output" / "svp" / file).unlink()
    assert changed(trained, SVPTrainStage.execute(loaded[0], dataset, **{**STAGE, "steps": 2}).args[0]) == set()


def test_files_of_others_stay_as_they_are(folders, loaded, dataset, model_file):
    mine = folders / "output" / "svp" / "trained.safetensors"
    mine.parent.mkdir()
    for content in (b"anything", model_file.read_bytes()):
        mine.write_bytes(content)
        with pytest.raises(
            PortraitError, match="trained.safetensors exists and is not of this training.*choose another name"
        ):
            SVPTrainStage.execute(loaded[0], dataset, **STAGE)
        assert mine.read_bytes() == content
    notes = folders / "output" / "svp_training" / "other" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.touch()
    with pytest.raises(PortraitError, match="holds notes.txt and no training"):
        SVPTrainStage.execute(loaded[0], dataset, **{**STAGE, "name": "other"})


def test_a_model_that_hears_through_an_encoder(folders, dataset, write_vexpress, write_vae):
    """V-Express' layout, and its encoder's features stored with the clips."""
    folder_paths.use(folders, folders / "models")
    write_vexpress(folders / "models" / "svp" / "vexpress", ENCODER.hidden_size)
    write_vae(folders / "models" / "vae")
    encoder = folders / "models" / "audio_encoders" / "tiny"
    with torch.inference_mode(False):
        Wav2Vec2Model(ENCODER).save_pretrained(encoder)
    Wav2Vec2FeatureExtractor().save_pretrained(encoder)
    hearing = SVPLoadAudioEncoder.execute("tiny").args[0]
    model = SVPApplyAudioEncoder.execute(SVPLoadModel.execute("vexpress/").args[0], hearing).args[0]
    heard, _ = SVPPrepareDataset.execute(**{**DATA, "audio_encoder": "tiny"}).args
    trained, file = SVPTrainStage.execute(model, heard, **{**STAGE, "steps": 2}).args
    assert changed(model, trained) == {"denoiser", "style_projection"}
    assert trained.portrait.audio_encoder is hearing.encoder
    assert file in SVPLoadModel.define_schema().inputs[0].options
    with pytest.raises(PortraitError, match="prepare"):
        SVPTrainStage.execute(model, dataset, **{**STAGE, "name": "deaf"})


def test_without_the_extra_the_node_says_so(folders, loaded, dataset, monkeypatch):
    for name in [each for each in sys.modules if each.startswith("svp_portrait.svp_models.training.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(
        PortraitError, match=r"training needs the package accelerate: pip install 'svp-portrait\[train\]'"
    ):
        SVPTrainStyleExtractor.execute(loaded[0], dataset, **STYLE)
