"""A websocket client (RFC 6455) of the standard library: enough to follow a host, or to drive a browser."""

from __future__ import annotations

import base64
import os
import socket
import struct
from urllib.parse import urlsplit

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocket:
    """An open connection. `receive` waits for `timeout` seconds at most and then raises TimeoutError; nothing is lost by it."""

    def __init__(self, url: str, timeout: float = 30.0):
        parts = urlsplit(url)
        self.connection = socket.create_connection((parts.hostname, parts.port or 80), timeout=timeout)
        self.read = b""  # received and not yet taken
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = [
            f"GET {path} HTTP/1.1", f"Host: {parts.netloc}", "Upgrade: websocket", "Connection: Upgrade",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13", "", "",
        ]  # fmt: skip
        self.connection.sendall("\r\n".join(request).encode())
        while b"\r\n\r\n" not in self.read:
            self._more()
        head, self.read = self.read.split(b"\r\n\r\n", 1)
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            self.connection.close()
            raise ConnectionError(f"{url}: {head[:200].decode(errors='replace')}")

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_) -> None:
        self.connection.close()

    def _more(self) -> None:
        part = self.connection.recv(1 << 16)
        if not part:
            raise ConnectionError("the other side closed the connection")
        self.read += part

    def _frame(self) -> tuple[bool, int, bytes]:
        """(last of its message, opcode, content) of the next frame, taken only once all of it is there."""
        while True:
            start, size = 2, self.read[1] & 127 if len(self.read) > 1 else None
            if size in (126, 127):
                start, form = (4, "!H") if size == 126 else (10, "!Q")
                size = struct.unpack(form, self.read[2:start])[0] if len(self.read) >= start else None
            if size is not None and len(self.read) >= start + size:
                first, content = self.read[0], self.read[start : start + size]
                self.read = self.read[start + size :]
                return bool(first & 128), first & 15, content
            self._more()

    def send(self, content: str | bytes) -> None:
        """A text, or bytes, as one message."""
        text = isinstance(content, str)
        self._send(TEXT if text else BINARY, content.encode() if text else content)

    def _send(self, kind: int, content: bytes) -> None:
        size = len(content)
        head = bytes([128 | kind])
        if size < 126:
            head += bytes([128 | size])
        else:
            head += (
                bytes([128 | 126]) + struct.pack("!H", size)
                if size < 1 << 16
                else bytes([255]) + struct.pack("!Q", size)
            )
        mask = os.urandom(4)
        masked = bytes(each ^ mask[index % 4] for index, each in enumerate(content))
        self.connection.sendall(head + mask + masked)

    def receive(self, timeout: float = 30.0) -> str | bytes:
        """The next message: a text, or bytes."""
        self.connection.settimeout(timeout)
        message, kind = b"", None
        while True:
            last, code, content = self._frame()
            if code == PING:
                self._send(PONG, content)
            elif code == CLOSE:
                raise ConnectionError(f"the other side closed the connection: {content[2:].decode(errors='replace')}")
            elif code != PONG:
                message, kind = message + content, kind or code
                if last:
                    return message.decode() if kind == TEXT else message
