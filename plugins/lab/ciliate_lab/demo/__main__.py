"""`python -m ciliate_lab.demo`: the whole demonstration, in numbered steps."""

from __future__ import annotations

import subprocess
import sys
import time

from ciliate_lab.demo import steps
from ciliate_lab.demo.shell import BIN, ENVIRONMENT, LAB, DemoError, say

STEPS = (
    ("A cluster on this machine: one node, its agent, a data path in the kernel", steps.start),
    ("Three pods: web, api, db, each connected by the CNI plugin", steps.deploy),
    ("Without a policy, everybody talks to everybody", steps.before),
    ("Policies: web may use api, api may use db, nobody else may", steps.protect),
    ("What is allowed now, and the rule that decided", steps.after),
    ("The same, as the kernel saw it", steps.events),
    ("The agent is killed under traffic; the kernel goes on", steps.kill),
    ("What Hubble kept of all that: each denied flow with the rule that denied it", steps.flows),
)

NEXT = f"""What to try next:
   . .venv/bin/activate
   ciliate lab up
   ciliate hubble observe -f --rule                             # in another terminal
   ciliate apply --wait -f {steps.SHOWN}
   ciliate get pods                                             # ADDRESS of api
   ciliate lab exec web -- curl -m 1 http://ADDRESS:8080/       # allowed; from db it is not
   ciliate policy explain --from db --to api --port 8080/tcp
   ciliate lab down
Change the policies in that folder, apply them again, and see. README.md goes on from there; docs/architecture.md
says how it works."""


def main() -> int:
    """Run the steps; 0 if everything was as promised."""
    began = time.monotonic()
    try:
        for number, (title, step) in enumerate(STEPS, 1):
            say(f"\n{number}. {title}")
            step()
    except DemoError as error:
        say(f"\nNOT AS PROMISED: {error}")
        return 1
    finally:
        say("\nCleaning up")
        done = subprocess.run([str(BIN / "ciliate"), "lab", "down"], env=ENVIRONMENT, check=False)
    if done.returncode:
        return 1
    say(f"\nAll as promised, in {time.monotonic() - began:.0f} s; lab {LAB} left nothing behind.\n\n{NEXT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
