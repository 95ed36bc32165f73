"""The programs of tools/parity answer --help, also without torch."""

import runpy
import sys
from pathlib import Path

import pytest
from cases import CLASS_GAINS, cases

TOOLS = Path(__file__).parents[2] / "tools" / "parity"


@pytest.mark.parametrize("name", ["run.py", "store.py"])
def test_programs_answer_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / name), run_name="__main__")
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {name}")


def test_cases_cover_seeds_batch_sizes_and_numbers_of_objects():
    found = cases("maskrcnn_resnet50_fpn", (3, 4))
    assert {case.seed for case in found} == {3, 4}
    assert {len(case.sizes) for case in found} == {1, 2}
    objects = [case.objects for case in found if case.objects is not None]
    assert min(map(min, objects)) == 0
    assert max(map(max, objects)) > 20
    assert len({case.name for case in found}) == len(found)
    assert len(CLASS_GAINS) == 9
