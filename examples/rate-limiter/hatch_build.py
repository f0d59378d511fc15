"""Compiles the program when the package is built, with the public header of the Ciliate that is installed."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import ciliate
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileProgram(BuildHookInterface[Any]):
    """Called by hatchling."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        source = Path(self.root, "ciliate_rate_limiter", "rate_limiter.bpf.c")
        headers = Path(ciliate.__file__).parent / "_bpf" / "include"
        machine = f"/usr/include/{platform.machine()}-linux-gnu"  # where Debian keeps asm/types.h
        options = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror", f"-I{headers}", "-isystem", machine]
        subprocess.run(["clang-19", *options, "-c", source, "-o", source.with_suffix(".o")], check=True)
        build_data["artifacts"].append("ciliate_rate_limiter/rate_limiter.bpf.o")
