"""What is timed is told with what it was timed on."""

import platform
from pathlib import Path

from nasengine.machine import processor


def test_the_processor_is_called_by_its_name_where_the_system_tells_it(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU @ 2 GHz\n\nflags\t: a\n")
    assert processor(told) == f"Some CPU @ 2 GHz ({platform.machine()})"
    told.write_text("processor\t: 0\nmodel name\t:\n")
    unnamed = platform.processor() or platform.machine()
    assert processor(told) == processor(tmp_path / "none") == unnamed
