"""Lessons on the real ksmd beside the model: what a learner sees is what this kernel does."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksmtrace.kernel.releases import running_profile
from ksmtrace.kernel.sysfs import KNOBS, KSM
from ksmtrace.lessons.lesson import Lesson, shipped_lessons
from tests.live.conftest import run_ksmtrace

LIVE = [lesson for lesson in shipped_lessons() if lesson.live]
WRITABLE = [knob.name for knob in KNOBS if (KSM / knob.name).exists()]


@pytest.mark.parametrize("lesson", LIVE, ids=lambda lesson: lesson.name)
def test_a_live_lesson_agrees_with_the_real_ksmd(lesson: Lesson) -> None:
    before = {name: (KSM / name).read_text() for name in WRITABLE}
    done = run_ksmtrace("learn", lesson.name, "--live")
    assert done.returncode == 0, done.stderr
    closing = " ".join(done.stdout.split())
    model = f"ksm:{running_profile().name}"
    assert f"host and {model} agree in every counter and every event." in closing
    assert "Otherwise than written" not in closing
    assert {name: (KSM / name).read_text() for name in WRITABLE} == before


def test_a_teachers_own_lesson_runs_live(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        'title = "Seventeen"\n[[step]]\nmap = "a.heap"\npages = 17\n'
        '[[step]]\nwrite = "a.heap"\ncontent = "same"\n[[step]]\nscan = 3\n'
        "expect = { pages_shared = 1, pages_sharing = 16 }\n"
    )
    done = run_ksmtrace("learn", mine, "--live")
    assert done.returncode == 0, done.stderr
    assert "agree in every counter and every event." in done.stdout
    assert "host" in done.stdout
