"""Running kubectl against one cluster, without touching the user's own configuration or cache."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from nexus_devtools.controlplane.errors import ControlPlaneError

TIMEOUT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Kubectl:
    """A kubectl program, the kubeconfig it uses unless told otherwise, and where it may cache."""

    program: Path
    kubeconfig: Path
    cache: Path

    def run(
        self,
        *arguments: str | Path,
        input: str | None = None,
        kubeconfig: Path | None = None,
        check: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> subprocess.CompletedProcess[str]:
        """Run it and capture its output as text.

        With ``check``, an exit code other than 0 is a ControlPlaneError that carries its message.
        """
        command = [str(self.program), *map(str, arguments)]
        environment = {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig if kubeconfig is None else kubeconfig),
            "KUBECACHEDIR": str(self.cache),
        }
        answer = subprocess.run(
            command,
            input=input,
            # Nothing to read rather than the terminal: no kubectl waits for a person.
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
            env=environment,
        )
        if check and answer.returncode != 0:
            said = (
                answer.stderr.strip() or answer.stdout.strip() or f"exit code {answer.returncode}"
            )
            raise ControlPlaneError(f"kubectl {' '.join(command[1:])}: {said}")
        return answer
