"""What was run already: a directory with a file for each task that has ended.

Promises that a run which was stopped goes on where it was, and that every result knows the commit
of the sources that made it. It does not compare commits: an old directory gives old results, and
the tables say of which commit they are.
"""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from bench.simulate.measure import Result
from bench.simulate.summary import Summary

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Batch:
    """The results of one task by scenario."""

    commit: str
    summaries: dict[str, Summary]
    pictures: dict[str, Result]


class Batches:
    """The directory; None: nothing is saved."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self.commit = commit_of(ROOT)
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)

    def load(self, label: str, retries: int, seed: int, names: Collection[str]) -> list[Batch]:
        """What is there of these scenarios."""
        found = []
        if self._directory is not None:
            for file in sorted(self._directory.glob(f"{_stem(label, retries, seed)}+*.pickle")):
                batch = pickle.loads(file.read_bytes())
                mine = {name: one for name, one in batch.summaries.items() if name in names}
                drawn = {name: one for name, one in batch.pictures.items() if name in names}
                if mine:
                    found.append(Batch(batch.commit, mine, drawn))
        return found

    def save(
        self,
        label: str,
        retries: int,
        seed: int,
        summaries: dict[str, Summary],
        pictures: dict[str, Result],
    ) -> None:
        """Keep the results of a task."""
        if self._directory is None:
            return
        first = next(iter(summaries)).replace(" ", "_").replace("%", "pc")
        file = self._directory / f"{_stem(label, retries, seed)}+{first}.pickle"
        part = file.with_suffix(".part")
        part.write_bytes(pickle.dumps(Batch(self.commit, summaries, pictures)))
        part.rename(file)


def _stem(label: str, retries: int, seed: int) -> str:
    plain = "".join(c if c.isalnum() or c in ".," else "_" for c in label)
    return f"{plain}+{retries}+{seed}"


def commit_of(root: Path) -> str:
    """The commit of the sources, with a mark if they were edited since; "unknown" without git."""
    told = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty=, edited", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"
