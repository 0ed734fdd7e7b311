"""Downloads against a small server that speaks the hub's protocol, kind and unkind."""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from svp_portrait.svp_models.checkpoints import hub as hub_module
from svp_portrait.svp_models.checkpoints import model_zoo
from svp_portrait.svp_models.checkpoints.liveportrait import holds_liveportrait
from svp_portrait.svp_models.checkpoints.model_zoo import Entry, WeightFile
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.errors import PortraitError

CONTENT = bytes(range(256)) * 3000  # 768,000 bytes
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """/owner/name/resolve/main/<file> redirects to another host, as the hub does with large files."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        """The test's output stays clean."""

    def do_HEAD(self):
        self.server.asked.append(self.path)
        if self.server.only and not self.path.endswith(self.server.only):
            return self._answer(404)
        self._answer(302, {"Location": f"{self.server.store}/store/weights.bin", "X-Repo-Commit": "c" * 40,
                           "X-Linked-Size": str(len(CONTENT)), "X-Linked-ETag": f'"{self.server.etag}"', "ETag": '"a"'})  # fmt: skip

    def do_GET(self):
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.server.starts.append(start)
        body = self.server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header(
                "Content-Range", f"bytes {start}-{len(self.server.content) - 1}/{len(self.server.content)}"
            )
        self.end_headers()
        sent = self.server.breaks.pop(0) if self.server.breaks else len(body)
        self.wfile.write(body[:sent])
        if sent < len(body):
            self.close_connection = True
            self.connection.close()

    def _answer(self, status, headers=()):
        self.send_response(status)
        for name, value in {**dict(headers), "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def hub(monkeypatch):
    """The server; breaks: after how many bytes it hangs up, one for each GET; starts: where each GET began; only: the end of the
    path that it knows, empty for all; asked: the paths."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16)  # of 10 MB, far more than the file
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.address, server.store = (f"http://{host}:{server.server_port}" for host in ("127.0.0.1", "localhost"))
        server.content, server.etag, server.breaks, server.starts = CONTENT, SHA256, [], []
        server.only, server.asked = "/resolve/main/weights.bin", []
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def entry(sha256=SHA256, name="weights.bin"):
    return Entry("test", (WeightFile(name, len(CONTENT), sha256),), "svp/test", "MIT", "owner/name", "tests")


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_arrives_whole_and_is_not_fetched_twice(hub, tmp_path):
    for _ in range(2):
        [path] = hub_module.download(entry(), tmp_path, hub.address)
        assert path == tmp_path / "svp/test/weights.bin" and path.read_bytes() == CONTENT
    assert hub.starts == [0] and names(tmp_path) == ["weights.bin"]


def test_a_broken_connection_goes_on_where_it_stopped(hub, tmp_path):
    hub.breaks = [300_000]
    [path] = hub_module.download(entry(), tmp_path, hub.address)
    assert path.read_bytes() == CONTENT
    assert len(hub.starts) == 2 and 0 < hub.starts[1] <= 300_000


def test_the_next_call_goes_on_where_the_last_one_stopped(hub, tmp_path, monkeypatch):
    hub.breaks = [300_000]

    def interrupted(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupted)  # the pause before the library's own second attempt
    with pytest.raises(KeyboardInterrupt):
        hub_module.download(entry(), tmp_path, hub.address)
    [partial] = names(tmp_path)
    assert partial == f"weights.bin.{SHA256[:16]}.partial"
    had = (tmp_path / "svp/test" / partial).stat().st_size
    assert 0 < had <= 300_000
    [path] = hub_module.download(entry(), tmp_path, hub.address)
    assert path.read_bytes() == CONTENT and hub.starts == [0, had] and names(tmp_path) == ["weights.bin"]


@pytest.mark.parametrize("known", [SHA256, None])
def test_a_wrong_hash_is_removed_and_reported(hub, tmp_path, known):
    """known: the hash in the model zoo; without one the hub's etag has to match."""
    hub.content = CONTENT[:-1] + b"x"
    have = hashlib.sha256(hub.content).hexdigest()
    with pytest.raises(PortraitError, match=f"has SHA-256 {have}, {SHA256} is expected: it was removed"):
        hub_module.download(entry(known), tmp_path, hub.address)
    assert names(tmp_path) == []
    hub.content = CONTENT
    assert hub_module.download(entry(known), tmp_path, hub.address)[0].read_bytes() == CONTENT


def test_a_damaged_file_that_is_there_is_reported_and_kept(hub, tmp_path):
    path = tmp_path / "svp/test/weights.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(PortraitError, match="weights.bin: its SHA-256 is .*, the published file has .*: it is damaged"):
        hub_module.download(entry(), tmp_path, hub.address)
    assert path.read_bytes() == b"mine" and hub.starts == []


def test_what_is_not_to_be_had(hub, tmp_path):
    with pytest.raises(PortraitError, match="other.bin could not be downloaded from .*/resolve/main/other.bin .*404"):
        hub_module.download(entry(name="other.bin"), tmp_path, hub.address)
    with pytest.raises(PortraitError, match="could not be downloaded from http://127.0.0.1:9/.*: check the connection"):
        hub_module.download(entry(), tmp_path, "http://127.0.0.1:9")
    with pytest.raises(PortraitError, match="buffalo_l is not on Hugging Face: download det_10g.onnx, 2d106det.onnx"):
        hub_module.download(model_zoo.entry_named("buffalo_l"), tmp_path)


def test_the_command(hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(model_zoo.ENTRIES, "test", entry())
    arguments = ["download", "test", "--models", str(tmp_path), "--endpoint", hub.address]
    assert main(lambda folders, progress: [], arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["test: 768 kB, licence: MIT", str(tmp_path / "svp/test/weights.bin")]
    assert main(lambda folders, progress: [], ["download", "nothing"]) == 1
    assert "no entry 'nothing' in the model zoo" in capsys.readouterr().err


def test_a_file_of_another_host_is_fetched_from_its_address(hub, tmp_path):
    file = WeightFile("norm.npz", len(CONTENT), SHA256, url=f"{hub.store}/raw/norm.npz")
    other = Entry("test", (file,), "test", "MIT", "owner/name", "tests")
    hub.breaks = [300_000]
    [path] = hub_module.download(other, tmp_path, hub.address)
    assert path == tmp_path / "test/norm.npz" and path.read_bytes() == CONTENT and hub.asked == []
    path.unlink()
    hub.content = CONTENT[:-1] + b"x"
    with pytest.raises(PortraitError, match=f"{SHA256} is expected: it was removed"):
        hub_module.download(other, tmp_path, hub.address)
    missing = WeightFile("norm.npz", url="http://127.0.0.1:9/norm.npz")
    with pytest.raises(PortraitError, match="norm.npz could not be downloaded from http://127.0.0.1:9/norm.npz"):
        hub_module.download(replace(other, files=(missing,)), tmp_path, hub.address)


def test_photographs_talk_after_one_command(hub, tmp_path, monkeypatch, capsys):
    """LivePortrait and both generators: their files as the hub has them, put where the loaders look for them."""
    hub.only = ""
    names = ("liveportrait", "joyvasa", "kdtalker", "liveportrait-pth", "chinese-hubert-base")
    for name in names:
        published = model_zoo.entry_named(name)
        files = [
            replace(file, bytes=None, sha256=None, url=f"{hub.store}/{file.name}" if file.url else "")
            for file in published.files
        ]
        monkeypatch.setitem(model_zoo.ENTRIES, name, replace(published, files=tuple(files)))
    assert (
        main(lambda folders, progress: [], ["download", *names, "--models", str(tmp_path), "--endpoint", hub.address])
        == 0
    )
    assert "liveportrait: " in capsys.readouterr().out
    assert hub.asked[:2] == [
        f"/Kijai/LivePortrait_safetensors/resolve/main/{name}.safetensors"
        for name in ("appearance_feature_extractor", "motion_extractor")
    ]
    assert "/jdh-algo/JoyVASA/resolve/main/motion_generator/motion_generator_hubert_chinese.pt" in hub.asked
    assert "/ChaolongYang/KDTalker/resolve/main/ckpts/wav2lip.pth" in hub.asked
    assert "/KwaiVGI/LivePortrait/resolve/main/liveportrait/base_models/warping_module.pth" in hub.asked
    assert holds_liveportrait(path.name for path in (tmp_path / "liveportrait").iterdir())
    assert holds_liveportrait(path.name for path in (tmp_path / "liveportrait/pth").iterdir())
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {
        "joyvasa/motion_generator_hubert_chinese.pt", "joyvasa/motion_template.pkl", "kdtalker/KDTalker.pth",
        "kdtalker/wav2lip.pth", "kdtalker/norm.npz", "joyvasa/chinese-hubert-base/pytorch_model.bin",
    } <= there  # fmt: skip
