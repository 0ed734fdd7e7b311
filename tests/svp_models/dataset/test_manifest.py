"""What a data set says of its making."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from svp_portrait.svp_models.dataset import manifest


def test_a_pack_that_is_not_installed_knows_its_version(monkeypatch):
    """As a folder among the host's custom nodes."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    installed = version("svp-portrait")
    monkeypatch.setattr(manifest, "version", missing)
    assert manifest.own_version() == installed
    assert manifest.make_card({}, "digest", 1)["svp-portrait"] == installed
