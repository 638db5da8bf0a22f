"""A 64-bit Arm machine under emulation: Debian's libraries, a Python as Jetsons have it, and packages as wheels.

qemu's user mode runs the programs. It is registered in a user namespace of its own, so that this machine stays as it
is. Everything is fetched by the clients of package indices, once, into the user's cache folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from arm_wheels import extras

REPOSITORY = Path(__file__).parents[2]
CACHE = Path.home() / ".cache" / "edgead-tests" / "aarch64"
PYTHONS = ("3.10", "3.11", "3.12")
"""JetPack 6 has 3.10, JetPack 7 has 3.12."""
DEBIANS = "3.11"
"""The Python of Debian bookworm, whose packages are the root."""
CPUS = ("neoverse-n1", "max")
"""As qemu names them: Armv8.2 like the Cortex-A78AE of Orin, and everything that qemu knows, SVE and I8MM included."""
TOOLS = {
    "qemu-aarch64-static": "qemu-user-static",
    "unshare": "util-linux",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
"""Program ↦ Debian's package with it."""
LIBRARIES = ("libc6", "libstdc++6", "dash", "coreutils", "python3")
PACKAGES = ("cpu", "line", "mqtt", "sign", "view")
"""Extras that are installed there."""
FOR_TESTS = ("pytest", "onnx", "hypothesis", "scipy")
LAUNCHER = "cx_Freeze==7.2.10"
"""Its wheels hold CPython 3.10 and 3.12 for aarch64, the extension modules included, which Debian does not have."""
BUILD_FACTS = "_sysconfigdata__linux_aarch64-linux-gnu.py"
"""What `sysconfig` reads of how a Python was built; the wheels leave it out, and hypothesis asks for it."""
GLIBC = "aarch64-manylinux_2_36"  # bookworm's
HOME = "/opt/python{}"
ENTER = """
set -e
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf %s "$MAGIC" > /proc/sys/fs/binfmt_misc/register
mount --rbind /proc "$GUEST/proc"
mount --rbind /dev "$GUEST/dev"
mount --rbind /sys "$GUEST/sys"
mount --bind "$PROCESSORS" "$GUEST/proc/cpuinfo"
mount --bind "$REPOSITORY" "$GUEST/repository"
mount --bind "$WORK" "$GUEST/work"
exec chroot "$GUEST" /usr/bin/env -i -C /work "$@"
"""
PROCESSOR = """\
processor\t: {}
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""
"""A Neoverse N1 in /proc/cpuinfo. Older qemus show this machine's processors there, on which ONNX Runtime crashes."""
HEADER = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


class NotHereError(Exception):
    """This machine cannot emulate 64-bit Arm; the message is the reason, in one line."""


def prepare(python: str) -> Path:
    """Return the root of the emulated machine with a Python and the packages, from the cache if it is there.

    Raises:
        NotHereError: a tool is missing, or something cannot be fetched.
    """
    require_tools()
    root = CACHE / "root"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _once(root, _debian)
        if python != DEBIANS:
            _once(root / HOME.format(python).lstrip("/"), lambda folder: _launcher(python, folder))
        _once(root / packages(python).lstrip("/"), lambda folder: _install(python, folder))
    done = run(python, "-c", "import platform; print(platform.machine())", work=root / "work")
    if done.stdout.strip() != "aarch64":
        raise NotHereError(f"programs for aarch64 do not run here: {_last(done.stderr)}")
    return root


def require_tools() -> None:
    """Raise NotHereError if a program is missing that the emulated machine needs."""
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            raise NotHereError(f"no {tool} here; on Debian: apt-get install {package}")


def packages(python: str) -> str:
    """Return the folder over there with the packages of a Python; others when the requirements change."""
    digest = hashlib.sha256("\n".join(requirements()).encode()).hexdigest()
    return f"/opt/packages-{python}-{digest[:8]}"


def requirements() -> list[str]:
    """Return what is installed beside edgead itself."""
    return [*(line for extra in ("", *PACKAGES) for line in extras()[extra]), *FOR_TESTS]


def run(
    python: str,
    *arguments: str,
    work: Path,
    cpu: str = CPUS[0],
    timeout: float = 600,
    more: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Call a Python of the prepared machine; return its exit code and what it wrote.

    Args:
        python: its version.
        arguments: of the interpreter, as ``-m edgead inspect bundle.edgead``.
        work: a folder of this machine, the current folder over there. Its ``installed`` comes first on the path.
        cpu: the processor, as qemu names it.
        timeout: s.
        more: variables of the environment.
    """
    root, qemu = CACHE / "root", shutil.which("qemu-aarch64-static")
    processors = CACHE / "cpuinfo"
    if not processors.exists():
        processors.write_text("".join(map(PROCESSOR.format, range(os.cpu_count() or 1))))
    inside = f"/usr/bin/python{python}" if python == DEBIANS else f"{HOME.format(python)}/python"
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/work",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": f"/work/installed:{packages(python)}",
        "QEMU_CPU": cpu,
        "OMP_NUM_THREADS": "1",
    }
    words = [f"{name}={value}" for name, value in {**environment, **(more or {})}.items()]
    given = {
        "GUEST": str(root),
        "REPOSITORY": str(REPOSITORY),
        "WORK": str(work),
        "PROCESSORS": str(processors),
        "MAGIC": f":aarch64:M::{HEADER}:{MASK}:{qemu}:F",
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    }
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ENTER, "sh", *words, inside, *arguments]
    return subprocess.run(command, env=given, capture_output=True, text=True, timeout=timeout, check=False)


def install(work: Path) -> None:
    """Install edgead, as a wheel of this checkout, for the emulated machine that has this work folder."""
    source, wheels, installed = (work / name for name in ("source", "wheels", "installed"))
    for folder in (source, wheels, installed):
        shutil.rmtree(folder, ignore_errors=True)
    # A copy: builds of several tests at once would meet in the checkout's build folder.
    shutil.copytree(REPOSITORY / "edgead", source / "edgead", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    pip = [sys.executable, "-m", "pip"]
    wheel = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source)]
    subprocess.run(wheel, capture_output=True, check=True)
    [made] = wheels.glob("*.whl")
    subprocess.run([*pip, "install", "-q", "--no-deps", "--target", str(installed), str(made)], check=True)


def _once(folder: Path, make: Callable[[Path], None]) -> None:
    if not folder.is_dir():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        make(part)
        part.rename(folder)


def _debian(root: Path) -> None:
    """Unpack Debian's libraries for arm64; none of their scripts is run."""
    apt = CACHE / "apt"
    shutil.rmtree(apt, ignore_errors=True)
    for name in ("state/lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "root",
        "Debug::NoLocking": "true",
        "Dir::State": apt / "state",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _call("apt-get", *words, "-qq", "update")
    _call("apt-get", *words, "-qq", "--download-only", "install", *LIBRARIES)
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        _call("dpkg-deb", "--extract", package, root)
    if not (root / "usr" / "bin" / f"python{DEBIANS}").exists():
        raise NotHereError("this machine's apt has other packages than Debian bookworm's")
    for name in ("proc", "dev", "sys", "tmp", "repository", "work", "opt", "root"):
        (root / name).mkdir(exist_ok=True)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/work:/bin/sh\n")


def _launcher(python: str, folder: Path) -> None:
    """Take CPython from the wheel, and the standard library's Python files from this machine's."""
    standard = _standard_library(python)
    _uv("install", "--target", folder / "wheel", *_for(python), LAUNCHER)
    [found] = (folder / "wheel").glob("cx_Freeze/bases/console-*-aarch64-*")
    shutil.copytree(
        standard, folder / "lib", ignore=shutil.ignore_patterns("site-packages", "*.so", "test", "__pycache__")
    )
    for compiled in (folder / "wheel").rglob("*.so*"):
        shutil.copy(compiled, folder / "lib" / compiled.name)
    (folder / "lib" / BUILD_FACTS).write_text("build_time_vars = {}\n")
    found.rename(folder / "python")
    shutil.copy(Path(__file__).with_name("launcher_startup.py"), folder / "lib" / "__startup__.py")
    shutil.rmtree(folder / "wheel")


def _standard_library(python: str) -> Path:
    pyenv = Path.home() / ".pyenv" / "versions"
    for path in (*map(str, pyenv.glob(f"{python}.*/bin/python")), shutil.which(f"python{python}")):
        if path:
            code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
            done = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return Path(done.stdout.strip())
    raise NotHereError(f"no Python {python} here, whose standard library is needed")


def _install(python: str, folder: Path) -> None:
    _uv("install", "--target", folder, *_for(python), *requirements())


def _for(python: str) -> list[str]:
    return ["--python-platform", GLIBC, "--python-version", python, "--only-binary", ":all:"]


def _uv(verb: str, *arguments: str | Path) -> None:
    _call(sys.executable, "-m", "uv", "pip", verb, "--quiet", *arguments)


def _call(*command: str | Path) -> None:
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHereError(f"{' '.join(words[:3])} failed: {_last(done.stderr)}")


def _last(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")
