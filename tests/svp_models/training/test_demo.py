from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.native import load_model, read_metadata
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.synthetic.clips import DATA_VERSION
from svp_portrait.svp_models.training.corpus import Corpus, CorpusConfig, build_corpus, clip_labels
from svp_portrait.svp_models.training.demo import DemoRecipe, scaled, train_demo
from svp_portrait.svp_models.training.loop import Schedule

CORPUS = CorpusConfig(speakers=3, emotions=3, frames=20, seed=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return build_corpus(tmp_path_factory.mktemp("corpus") / "clips", CORPUS, 1, lambda line: None)


def test_a_corpus_holds_every_clip_of_its_labels(corpus):
    assert len(corpus.finished()) == CORPUS.clips == len(corpus.labels) == 9
    for who in range(3):
        shown = [label.emotion for label in corpus.labels if label.speaker == who]
        assert len(set(shown)) == 3 and 0 in shown
    images, points = corpus.images[0], corpus.head_keypoints[0]
    assert images.shape == (20, 128, 128, 3)
    assert ((points > 0) & (points < 128)).all()
    assert np.isfinite(corpus.mel[0]).all()


def test_a_corpus_of_another_size_is_refused(corpus):
    with pytest.raises(PortraitError, match="wanted is"):
        Corpus(corpus.folder, replace(CORPUS, frames=24))


def test_labels_depend_on_the_seed_alone():
    assert clip_labels(CORPUS) == clip_labels(CORPUS)
    assert clip_labels(CORPUS) != clip_labels(replace(CORPUS, seed=4))


def test_the_scaled_recipe_keeps_its_order_and_shrinks_its_steps():
    recipe = DemoRecipe()
    small = scaled(recipe, 0.01)
    assert [stage for stage, _ in small.stages] == [stage for stage, _ in recipe.stages]
    assert all(schedule.steps < 50 for _, schedule in small.stages)
    assert small.corpus.speakers == 8


@pytest.mark.slow
def test_the_whole_recipe_writes_a_model_that_loads(corpus, tmp_path):
    pytest.importorskip("onnx", reason="exporting the analyser needs the `train` extra")
    short = Schedule(2, 1e-4, warmup=1)
    recipe = DemoRecipe()
    recipe = replace(
        recipe,
        corpus=CORPUS,
        takes=1,
        autoencoder=short,
        analyzer=short,
        style=short,
        projections=short,
        stages=tuple((replace(stage, clips=2), short) for stage, _ in recipe.stages),
    )
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "corpus").symlink_to(corpus.folder)
    lines = []
    output = train_demo(recipe, folder, tmp_path / "demo.safetensors", 5, 1, lines.append)
    metadata = read_metadata(output)
    assert metadata["seed"] == "5"
    assert metadata["step"] == "6"
    assert metadata["data_version"] == DATA_VERSION
    assert output.stat().st_size <= 30e6
    model = load_model(output)
    with torch.no_grad():
        assert model.vae.decode(torch.zeros(1, 16, 16, 16)).shape == (1, 3, 128, 128)

    again = train_demo(recipe, folder, tmp_path / "again.safetensors", 5, 1, lambda line: None)
    repeated = load_model(again)
    for name, tensor in model.networks.state_dict().items():
        assert torch.equal(tensor, repeated.networks.state_dict()[name]), name
