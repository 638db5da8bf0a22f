"""What the launcher imports: runs ``python [-u] [-m MODULE | -c CODE | FILE] ARGUMENT...`` without `site`."""

import os
import sys


def init():
    here = os.path.dirname(__file__)
    given = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    sys.path[:] = ["", *given, here, os.path.join(here, "lib-dynload")]
    sys.prefix = sys.exec_prefix = sys.base_prefix = sys.base_exec_prefix = os.path.dirname(here)


def run():
    import builtins
    import runpy

    builtins.exit = builtins.quit = sys.exit
    arguments = sys.argv[1:]
    while arguments and arguments[0] in ("-u", "-B", "-I", "-s", "-E"):
        arguments.pop(0)
    kind, *rest = arguments
    if kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(kind))
        runpy.run_path(kind, run_name="__main__")
