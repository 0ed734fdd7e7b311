from __future__ import annotations

import os

import pytest

from svp_portrait.svp_models.io.file_names import fill_fields, folder_name, prefix_problem, printable
from svp_portrait.svp_models.io.files import longest_name


def test_text_cannot_act_on_a_terminal():
    assert printable("a\x1b[2Jb\x07\x9b\r\n\t\u202e\ud800\x00") == r"a\x1b[2Jb\x07\x9b\r\n\t\u202e\ud800\x00"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"
    assert printable("Zoë 表 🧑‍🚀 naïve") == "Zoë 表 🧑‍🚀 naïve"


def test_fields_are_filled():
    assert fill_fields("%width%x%height%", 10, 20) == "10x20"
    assert fill_fields("%year%", 1, 1).isdigit()


@pytest.mark.parametrize("prefix", ["portrait", "svp/portrait", "a/b/c", "%width%", "Zoë 1", "clips/", "-x"])
def test_names_that_can_be_written(tmp_path, prefix):
    assert prefix_problem(tmp_path, prefix) is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("prefix", ["../x", "/etc/x", "..", ".", "a/../../x", "a/.."])
def test_names_stay_in_the_folder(tmp_path, prefix):
    assert "leads outside the output folder" in prefix_problem(tmp_path, prefix)


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("a\0b", r"holds the character \\x00"),
        ("a\x1b[2J", r"holds the character \\x1b"),
        ("\ud800", r"holds the character \\ud800"),
    ],
)
def test_names_that_no_file_can_have(tmp_path, prefix, problem):
    assert problem.replace("\\\\", "\\") in prefix_problem(tmp_path, prefix)


def test_the_longest_prefix_can_be_written_and_one_more_byte_cannot(tmp_path):
    longest = "x" * (longest_name(tmp_path) - 57)
    assert prefix_problem(tmp_path, longest) is None
    assert f"has {len(longest) + 1} bytes, at most {len(longest)} fit" in prefix_problem(tmp_path, longest + "x")
    assert "bytes, at most" in prefix_problem(tmp_path, "y" * 300 + "/x")
    assert "File name too long" in prefix_problem(tmp_path, "/".join(["z" * 190] * 40))  # the path as a whole


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "svp").touch()
    assert "svp is a file" in prefix_problem(tmp_path, "svp/portrait")
    assert "svp is a file" in prefix_problem(tmp_path / "svp", "portrait")


def test_links_that_lead_nowhere_or_away(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "away").symlink_to(tmp_path)
    assert prefix_problem(tmp_path, "a/x") is not None
    assert "leads outside" in prefix_problem(tmp_path / "out", "away/x")


def test_folders_are_named_after_any_text():
    assert folder_name("anna 01_b-c.d") == "anna 01_b-c.d"
    assert folder_name("a/b: é?") == "a%2Fb%3A %C3%A9%3F"
    assert len({folder_name(text) for text in ("a/b", "a%2Fb", "a_b")}) == 3
