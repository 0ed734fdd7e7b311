"""What saved graphs and users rely on: ids that never change, tooltips everywhere, bounds that hold."""

from __future__ import annotations

import ast
import inspect
import textwrap

import pytest

from svp_portrait.nodes.registry import NODE_CLASSES

# Saved graphs name nodes, inputs and outputs; nothing here is ever renamed or taken away, new inputs are optional.
FROZEN = {
    "SVPLoadModel": (["model"], ["SVP_MODEL", "VAE"]),
    "SVPStyleExtract": (["model", "frames", "audio", "fps", "face_analyzer"], ["SVP_STYLE_PRIOR"]),
    "SVPStyleSample": (["style_prior", "seed", "temperature"], ["SVP_STYLE"]),
    "SVPStyleInterpolate": (["style_a", "style_b", "start", "end", "easing"], ["SVP_STYLE"]),
    "SVPStyleSave": (["style_prior", "filename_prefix"], ["STRING"]),
    "SVPStyleLoad": (["style", "file"], ["SVP_STYLE_PRIOR"]),
    "SVPHeadKpsExtract": (["model", "frames", "fps", "face_analyzer"], ["SVP_HEAD_MOTION"]),
    "SVPHeadKpsRetarget": (["head_motion", "portrait", "mode", "model", "face_analyzer"], ["SVP_HEAD_MOTION"]),
    "SVPHeadKpsManual": (["image", "points"], ["SVP_HEAD_MOTION"]),
    "SVPHeadKpsRender": (["head_motion", "width", "height", "frames", "model"], ["IMAGE"]),
    "SVPSampler": (
        "model vae portrait audio head_motion seed steps cfg scheduler reference_weight audio_weight style_weight fps window "
        "overlap width height length style".split(),
        ["LATENT", "FLOAT"],
    ),
    "SVPVideoCombine": (["fps", "crf", "filename_prefix", "images", "latent", "vae", "audio"], ["VIDEO"]),
    "SVPLoadAudioEncoder": (["audio_encoder"], ["SVP_AUDIO_ENCODER"]),
    "SVPApplyAudioEncoder": (["model", "audio_encoder"], ["SVP_MODEL"]),
    "SVPLoadStyleLayer": (["model", "style_layer", "strength"], ["SVP_MODEL"]),
    "SVPSaveStyleLayer": (["model", "filename_prefix"], ["STRING"]),
    "SVPLoadFaceAnalyzer": (["backend", "face", "index", "smoothing", "expression"], ["SVP_FACE_ANALYZER"]),
    "SVPMedianFilter": (["images"], ["IMAGE"]),
    "SVPPrepareDataset": (
        "source name size seconds test_share audio_encoder backend expression people clips_per_person seed".split(),
        ["SVP_DATASET", "STRING"],
    ),
    "SVPTrainStyleExtractor": (
        "model dataset name steps batch learning_rate temperature seed".split(),
        ["SVP_MODEL", "STRING"],
    ),
    "SVPTrainStage": (
        "model dataset name stage steps batch learning_rate frames precision checkpoint_steps seed "
        "gradient_checkpointing".split(),
        ["SVP_MODEL", "STRING"],
    ),
}


@pytest.fixture(params=NODE_CLASSES, ids=lambda node: node.__name__)
def node(request):
    return request.param


def test_node_ids_are_frozen():
    assert [each.define_schema().node_id for each in NODE_CLASSES] == list(FROZEN)


def test_inputs_and_outputs_are_frozen(node):
    schema = node.define_schema()
    inputs, outputs = FROZEN[schema.node_id]
    assert [each.id for each in schema.inputs] == inputs
    assert [each.get_io_type() for each in schema.outputs] == outputs


def test_everything_is_explained(node):
    schema = node.define_schema()
    assert schema.node_id == node.__name__ and schema.display_name.endswith("(SVP)")
    assert schema.category.startswith("SVP Portrait") and schema.description.endswith(".")
    assert all(each.tooltip and each.tooltip.endswith(".") for each in (*schema.inputs, *schema.outputs))


def test_widgets_have_bounds_and_a_default_within(node):
    for each in node.define_schema().inputs:
        widget = each.as_dict()
        if each.get_io_type() in ("INT", "FLOAT"):
            assert widget["min"] <= widget["default"] <= widget["max"], each.id
            assert "step" in widget or each.id == "seed"
        if each.get_io_type() == "COMBO":
            assert widget["default"] in widget["options"]


def test_execute_takes_the_inputs_of_the_schema(node):
    schema = node.define_schema()
    given = inspect.signature(node.execute).parameters
    assert set(given) == {each.id for each in schema.inputs}
    for each in schema.inputs:
        assert (given[each.id].default is not inspect.Parameter.empty) == each.optional, each.id


def test_execute_is_short(node):
    body = ast.parse(textwrap.dedent(inspect.getsource(node.execute))).body[0].body
    assert sum(isinstance(each, ast.stmt) for statement in body for each in ast.walk(statement)) <= 15
