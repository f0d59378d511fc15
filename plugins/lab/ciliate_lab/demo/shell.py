"""Running the user's commands and showing them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent
LAB = "demo"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("HUBBLE_")} | {
    "CILIATE_LAB": LAB
}


class DemoError(Exception):
    """Something is not as promised."""


def say(text: str = "") -> None:
    """A line of the demonstration."""
    print(text, flush=True)


def show(*words: str) -> None:
    """Show a command as the user would type it, and run it with its output. Raises DemoError."""
    say(f"   $ {' '.join(words)}")
    done = subprocess.run(
        [str(BIN / words[0]), *words[1:]], env=ENVIRONMENT, text=True, capture_output=True, check=False
    )
    for line in (done.stdout + done.stderr).splitlines():
        say(f"     {line}")
    if done.returncode:
        raise DemoError(f"`{' '.join(words)}` ended with status {done.returncode}")


def ask(*words: str) -> Any:
    """The JSON that a command prints. Raises DemoError."""
    command = [str(BIN / words[0]), *words[1:], "-o", "json"]
    done = subprocess.run(command, env=ENVIRONMENT, text=True, capture_output=True, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError as error:
        raise DemoError(f"`{' '.join(words)}` did not print JSON: {done.stdout}{done.stderr}") from error


def in_pod(pod: str, *words: str) -> subprocess.Popen[str]:
    """A command inside a pod, started."""
    command = [str(BIN / "ciliate"), "lab", "exec", pod, "--", *words]
    return subprocess.Popen(command, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def output(process: subprocess.Popen[str], timeout: float = 60.0) -> str:
    """What a command printed when it had ended. Raises DemoError."""
    said, errors = process.communicate(timeout=timeout)
    if process.returncode:
        raise DemoError(f"{process.args!r} ended with status {process.returncode}: {errors}")
    return said


def wait(what: str, condition: Any, timeout: float = 30.0) -> Any:
    """The first true value of a condition. Raises DemoError."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise DemoError(f"{what} did not come within {timeout:g} s")
        time.sleep(0.05)
    return value
