"""What is installed: the page's files are in the wheel, and in it alone."""

from __future__ import annotations

from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

from nexus_operator.page.handlers import FILES

ROOT = Path(__file__).parents[3]


def test_every_file_of_the_page_is_in_the_wheel() -> None:
    shipped = {
        each.distribution_path for each in WheelBuilder(str(ROOT)).recurse_selected_project_files()
    }
    assert {f"nexus_operator/page/assets/{name}" for name, _ in FILES.values()} <= shipped
    assert not any(path.startswith(("nexus_devtools", "tests")) for path in shipped)
