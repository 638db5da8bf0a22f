"""A network whose only computer is this one, and a record of every name and address that programs in it ask for."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

RECORDER = '''
"""Writes a line for each name asked of the resolver, which knows none, and for each address beyond this machine."""
import ipaddress, select, socket
wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # all protocols
wire.bind(("lo", 3))
names, marks = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
names.bind(("127.0.0.1", 53))
marks.bind(("127.0.0.1", 54))
print("ready", flush=True)

def address(packet):
    version, header = packet[0] >> 4, (packet[0] & 15) * 4
    kind, target = (packet[9], packet[16:20]) if version == 4 else (packet[6], packet[24:40])
    start = header if version == 4 else 40
    if kind == 6 and packet[start + 13] & 18 != 2:
        return None, ""  # not the first packet of a TCP connection: an answer, or what follows
    port = int.from_bytes(packet[start + 2 : start + 4], "big") if kind in (6, 17) else ""
    return ipaddress.ip_address(target), port

def name(question):
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode())
        at += 1 + question[at]
    return ".".join(labels), at + 5

while True:
    for ready in select.select([wire, names, marks], [], [])[0]:
        if ready is wire:
            packet, (_, protocol, direction, *_) = wire.recvfrom(1 << 16)
            if direction == socket.PACKET_OUTGOING and protocol in (0x0800, 0x86DD):
                target, port = address(packet)
                if target and not target.is_loopback:
                    print("called", f"{target}:{port}", flush=True)
        elif ready is marks:
            print("now", marks.recv(512).decode(), flush=True)
        else:
            question, asker = names.recvfrom(512)
            asked, end = name(question)
            names.sendto(question[:2] + b"\\x81\\x83" + question[4:6] + bytes(6) + question[12:end], asker)
            print("asked", asked, flush=True)
'''
SCRIPT = """
set -e
ip link set lo up
ip route add local 0.0.0.0/0 dev lo
ip -6 route add local ::/0 dev lo 2> no-ipv6 || true
for file in resolv.conf nsswitch.conf hosts; do
  if [ -e /etc/$file ]; then mount --bind $file /etc/$file; fi
done
hostname apart
PYTHON recorder.py > heard & trap "kill $!" EXIT
until grep -q ready heard; do sleep 0.1; done
PYTHON use.py "$@"
"""
"""Every address leads to this machine, so that each call is a packet on its loopback interface."""
FILES = {
    "resolv.conf": "nameserver 127.0.0.1\noptions attempts:1\n",
    "nsswitch.conf": "hosts: files dns\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost\n",
}
RAY = {"called 169.254.169.254:80", "asked metadata.google.internal"}
"""What Ray asks when it starts, whatever its switches say (docs/sweep.md); nothing is sent."""
APART = ("unshare", "--net", "--mount", "--uts")


def skip_without() -> None:
    """Skip a test where no such network can be made."""
    if sys.platform != "linux" or not shutil.which("unshare") or not shutil.which("ip"):
        pytest.skip("a network of its own needs Linux with unshare and ip")
    if subprocess.run([*APART, "ip", "link"], capture_output=True, check=False).returncode:
        pytest.skip("a network of its own needs root")


def start(code: str, folder: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Start Python code in such a network, as a user with an empty home, in a new folder."""
    folder.mkdir(exist_ok=True)
    for name, text in {**FILES, "use.py": code, "recorder.py": RECORDER}.items():
        (folder / name).write_text(text)
    home = folder / "home"
    home.mkdir()
    # ONNX Runtime reports nothing where CI is set: the tests would see nothing either way.
    left_out = ("CI", "ORT_", "XDG_", "HF_", "RAY_", "MLFLOW_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    paths = os.pathsep.join(map(str, Path(__file__).parents[:2]))
    environment = {**kept, "HOME": str(home), "PYTHONPATH": paths, **variables}
    command = [*APART, "bash", "-c", SCRIPT.replace("PYTHON", sys.executable), "bash", *arguments]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, cwd=folder, start_new_session=True, **pipes)  # type: ignore[call-overload, no-any-return]


def end(process: subprocess.Popen[str], folder: Path, timeout: float = 120) -> tuple[set[str], list[str]]:
    """Wait for it; return what it asked for, and the files that it left in its home and that are not ours.

    Names are ``asked NAME``, addresses ``called ADDRESS:PORT``; after a mark, ``MARK: `` comes before them.
    """
    try:
        _, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, errors
    heard, mark = set(), ""
    for line in (folder / "heard").read_text().splitlines()[1:]:
        kind, _, what = line.partition(" ")
        if kind == "now":
            mark = f"{what}: "
        else:
            heard.add(mark + line)
    home = folder / "home"
    files = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    return heard, [file for file in files if not file.startswith((".cache/edgead/", ".config/edgead/"))]
