"""Steps machine and ceilings: what machine this is, and how fast its GPU can be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from common import Options, attempt, milliseconds


def machine(_: Options) -> None:
    """Report GPU, machine, versions and the findings of `edgead doctor`."""
    from edgead.doctor import diagnose
    from edgead.machine import describe_machine, find_gpu, versions

    attempt("gpu", lambda: {"gpu": dataclasses.asdict(find_gpu())})
    attempt("machine", lambda: {"machine": dataclasses.asdict(describe_machine()), "versions": versions()})
    attempt("doctor", lambda: {"findings": [dataclasses.asdict(each) for each in diagnose()]})


def ceilings(options: Options) -> None:
    """Measure memory bandwidth and matrix products with torch."""
    import torch

    side, values = (512, 2**20) if options.cpu else (8192, 2**30)

    def seconds(call: Callable[[], Any], rounds: int = 10) -> float:
        if options.cpu:
            return milliseconds(call, rounds)["p50"] / 1e3
        for _ in range(3):
            call()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        for _ in range(rounds):
            call()
        end.record()
        torch.cuda.synchronize()
        return float(begin.elapsed_time(end)) / rounds / 1e3

    def copy() -> dict[str, Any]:
        source = torch.randn(values, device=options.device)
        target = torch.empty_like(source)
        return {"terabytes_per_second": round(2 * source.nbytes / seconds(lambda: target.copy_(source)) / 1e12, 3)}

    def product(dtype: torch.dtype) -> dict[str, Any]:
        if dtype == torch.int8:
            a = torch.randint(-9, 9, (side, side), dtype=dtype, device=options.device)
            b = a.t().contiguous().t()
            taken = seconds(lambda: torch._int_mm(a, b))
        else:
            a = torch.randn(side, side, device=options.device, dtype=dtype)
            taken = seconds(lambda: a @ a)
        return {"tera_operations_per_second": round(2 * side**3 / taken / 1e12, 1)}

    attempt("copy on the device, bytes read and written", copy)
    for dtype in (torch.float32, torch.float16, torch.int8):
        attempt(f"{dtype} matrix product of side {side}", partial(product, dtype))
