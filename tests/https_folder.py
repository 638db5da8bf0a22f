"""A folder on a real HTTPS server of the tests, which can misbehave in every way that a pull must survive."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ENDLESS = b"\0" * (1 << 16)


def make_certificate(folder: Path, name: str, address: str = "127.0.0.1", days: int = 0) -> tuple[Path, Path]:
    """Write a certificate that signs itself, for one address and one day, and its key; return their paths."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return paths


class HttpsFolder:
    """Serves a folder until closed.

    Attributes:
        folder: what is served.
        asked: each request as ``NAME RANGE``.
        tokens: that came with the requests.
        answer: called with the handler, the name and the content, in place of the right answer; None for that.
    """

    def __init__(self, folder: Path, certificate: tuple[Path, Path]) -> None:
        self.folder = folder
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.answer: Callable[[BaseHTTPRequestHandler, str, bytes], bool] = lambda handler, name, content: False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.serve(self)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that leaves is no error."""

        self._server = Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/bundles/x.edgead"

    def serve(self, handler: BaseHTTPRequestHandler) -> None:
        name = unquote(handler.path.rpartition("/")[2])
        wanted = handler.headers.get("Range", "")
        self.asked.append(f"{name} {wanted}".strip())
        self.tokens.append(handler.headers.get("Authorization", ""))
        file = self.folder / name
        handler.close_connection = True
        if not file.is_file():
            handler.send_error(404)
            return
        content = file.read_bytes()
        if self.answer(handler, name, content):
            return
        begin = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if begin >= len(content) and begin:
            send(handler, 416, b"")
            return
        headers = {"Content-Range": f"bytes {begin}-{len(content) - 1}/{len(content)}"} if begin else {}
        send(handler, 206 if begin else 200, content[begin:], **headers)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
    """Answer; `length` is what Content-Length says, the body's by default, and nothing where negative."""
    handler.send_response(status)
    if length is None or length >= 0:
        handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body)
