"""A page of HTML in one file: it needs no network, works from disk, and runs only its own scripts.

Text from outside (process names above all) is hostile. It gets onto a page in two ways only:
through `escape` into markup, and through `data` into JSON, which scripts show as text. Should
either fail, the page's Content-Security-Policy names every script by its digest: no other one runs.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ksmtrace.processes.identity import clean

ASSETS = Path(__file__).parent / "assets"

_ESCAPED = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_NEVER_IN_ASSETS = ("</script", "</style", "<!--")
_THEME_BUTTON = (
    '<button type="button" class="theme" id="theme" hidden'
    ' title="Light, dark, or as the system has it">Theme: system</button>'
)


@cache
def asset(name: str) -> str:
    """The text of a file of assets/, for `styles` and `scripts`."""
    return (ASSETS / name).read_text(encoding="utf-8")


def escape(text: object) -> str:
    """Text for markup, also inside a quoted attribute: nothing in it is interpreted.

    Control characters and marks that turn the direction of writing are shown, not obeyed.
    """
    return html.escape(clean(str(text)))


def embed(name: str, value: Any) -> str:
    """A JSON value as an element that page.js' `pageData(name)` reads back the same.

    name: letters, digits and dashes. Raises ValueError for NaN or infinity, which JSON lacks.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return f'<script type="application/json" id="data-{name}">{text.translate(_ESCAPED)}</script>'


def render_page(
    *,
    title: str,
    body: str,
    subtitle: str = "",
    sections: Sequence[tuple[str, str]] = (),
    styles: Iterable[str] = (),
    scripts: Iterable[str] = (),
    data: Mapping[str, Any] | None = None,
    footer: str = "",
) -> str:
    """A whole page.

    title, subtitle: text, escaped here. body, footer: markup whose text went through `escape`.
    sections: id and title of parts of the body, for the list at the top. styles, scripts: the
    text of files of ours, in order, after page.css, theme.js and page.js; scripts run once the
    body is there, and share one scope. data: JSON values by name, for `pageData(name)` in scripts.
    Raises ValueError for an asset that would end its own element.
    """
    sheets = "\n".join([asset("page.css"), *styles])
    early, late = asset("theme.js"), [asset("page.js"), *scripts]
    for text in (sheets, early, *late):
        if any(end in text.lower() for end in _NEVER_IN_ASSETS):
            raise ValueError("an asset must not hold what ends its element")
    links = "".join(
        f'<li><a href="#{anchor}">{escape(words)}</a></li>' for anchor, words in sections
    )
    nav = f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if links else ""
    under = f'<p class="subtitle">{escape(subtitle)}</p>' if subtitle else ""
    values = "\n".join(embed(name, value) for name, value in (data or {}).items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy((early, *late))}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ksmtrace">
<meta name="referrer" content="no-referrer">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{sheets}</style>
<script>{early}</script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header class="top"><div class="title"><h1>{escape(title)}</h1>{under}</div>{_THEME_BUTTON}</header>
{nav}
<main id="main" tabindex="-1">
{body}
</main>
<footer>{footer}</footer>
{values}
{"".join(f"<script>{script}</script>" for script in late)}
</body>
</html>
"""


def _policy(scripts: Iterable[str]) -> str:
    """Nothing from anywhere, and of scripts those with these digests alone."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )
