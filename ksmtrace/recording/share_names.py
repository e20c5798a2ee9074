"""Names and what stands in their place: numbered by kind, equal for equal."""

from __future__ import annotations

import re

_KINDS_OF_MEMORY = frozenset(
    (
        "[heap]", "[stack]", "[anon]", "[anonymous]", "[vdso]", "[vvar]", "[vvar_vclock]",
        "[vsyscall]", "[uprobes]", "[kernel]",
    )
)  # fmt: skip
"""Names of mappings that say what they are and nothing of whose they are."""
_NAMED_MEMORY = re.compile(r"\[(anon|anon_shmem|stack):(.*)\]", re.DOTALL)
_PATH = re.compile(r"(?<![\w.:/])/(?!proc\b|sys\b)[^\s,;:()'\"]+")


class Names:
    """Pseudonyms of one recording's names, made as they are met."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}
        self._met: dict[str, str] = {}
        self._count: dict[str, int] = {}

    def of(self, what: str, name: str) -> str:
        """The pseudonym of a name: process-1, file-2. An empty one stays."""
        if not name:
            return name
        key = (what, name)
        if key not in self._given:
            self._count[what] = self._count.get(what, 0) + 1
            self._given[key] = f"{what}-{self._count[what]}"
            self._met.setdefault(name, self._given[key])
        return self._given[key]

    def of_cgroup(self, path: str) -> str:
        """That of a cgroup; the root is one on every host."""
        return path if path == "/" else self.of("cgroup", path)

    def of_mapping(self, name: str) -> str:
        """That of what is mapped somewhere: a file, or a name that the program gave."""
        if name in _KINDS_OF_MEMORY:
            return name
        named = _NAMED_MEMORY.fullmatch(name)
        if named is None:
            return self.of("file", name)
        return f"[{named[1]}:{self.of('name', named[2])}]"

    def scrub(self, text: str) -> str:
        """A sentence with every name that was met, and every path, replaced."""
        if self._met:
            longest_first = sorted(self._met, key=len, reverse=True)
            words = "|".join(map(re.escape, longest_first))
            text = re.sub(rf"(?<!\w)(?:{words})(?!\w)", lambda found: self._met[found[0]], text)
        return _PATH.sub(lambda found: self.of("file", found[0]), text)
