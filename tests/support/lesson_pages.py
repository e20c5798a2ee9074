"""A lesson whose every word tries to run something."""

from __future__ import annotations

import json

from ksmtrace.lab.scenario import parse_scenario
from ksmtrace.lessons.lesson import Lesson, lesson_of

HOSTILE = {
    "title": "</title></script><script>document.title='owned'</script>\u202e",
    "about": "<!-- <style>*{display:none}</style>",
    "goal": "<iframe src=//example.invalid>\x1b[2J",
    "say": "<img src=x onerror=\"document.title='owned'\">\n\n`<b9>` \u2028",
    "content": "<b9>&lt;",
    "question": "\"'><svg onload=document.title='owned'>",
    "answer": "<b9 onclick=document.title='owned'>\u2066",
    "because": "]]><script src=//example.invalid></script>",
}


def hostile_lesson() -> Lesson:
    """Two equal pages merge; then their process is gone, and ksmd does not know it yet."""
    word = {name: json.dumps(text) for name, text in HOSTILE.items()}
    text = f"""
title = {word["title"]}
about = {word["about"]}
[lesson]
goal = {word["goal"]}
closing = {word["say"]}
reading = [{word["title"]}]
[[step]]
map = "a.heap"
pages = 2
[[step]]
write = "a.heap"
content = {word["content"]}
say = {word["say"]}
[[step]]
intro = {word["say"]}
scan = 2
[step.ask]
question = {word["question"]}
answers = [{word["answer"]}, {word["because"]}]
right = 2
because = {word["because"]}
[[step]]
unmap = "a.heap"
"""
    return lesson_of(parse_scenario(text, "hostile.toml"), "hostile")
