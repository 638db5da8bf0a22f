"""Step torch: the same networks in torch, which the engines are compared with."""

from __future__ import annotations

from functools import partial
from typing import Any

from common import Options, attempt, milliseconds
from graphs import GRAPHS, SMALL, new_method


def torch_baseline(options: Options) -> None:
    """Run the networks as one CUDA graph, channels last."""
    import torch

    def measure(method: str, preset: str, settings: tuple[str, ...], half: bool) -> dict[str, Any]:
        made = new_method(method, preset, settings)
        network = made.reference_model().to(options.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        frames = torch.randint(0, 256, (1, *made.config.size, 3), dtype=torch.uint8, device=options.device)
        with torch.inference_mode(), torch.autocast(options.device, torch.float16, enabled=half and not options.cpu):
            for _ in range(3):
                network(frames)
            if options.cpu:
                return {"ms": milliseconds(lambda: network(frames), 2, 0)}
            torch.cuda.synchronize()
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                network(frames)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                network(frames)

        def replay() -> None:
            graph.replay()
            torch.cuda.synchronize()

        return {"ms": milliseconds(replay, 50)}

    for name, what in (SMALL if options.cpu else GRAPHS).items():
        for half in (False, True):
            attempt(f"{name}, {'fp16' if half else 'fp32'}", partial(measure, *what, half))
