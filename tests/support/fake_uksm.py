"""A host with UKSM, of files: its sysfs folder, meminfo, vmstat and uksmd."""

from __future__ import annotations

from pathlib import Path

import pytest

from ksmtrace.kernel import host, uksm

FILES = {
    "run": "1\n", "sleep_millisecs": "100\n", "cpu_governor": "[full] medium low quiet \n",
    "max_cpu_percentage": "95\n", "cpu_ratios": "20 40 MAX/4 MAX/1 \n",
    "eval_intervals": "1000 500 200 50 \n", "abundant_threshold": "10\n",
    "thrash_threshold": "50\n", "ema_per_page_time": "509\n", "pages_shared": "101\n",
    "pages_sharing": "1009\n", "pages_unshared": "307\n", "pages_scanned": "100003\n",
    "full_scans": "17\n", "hash_strength": "67\n", "sleep_times": "1013\n",
}  # fmt: skip


class FakeUksm:
    """Files that read as a UKSM kernel's do."""

    def __init__(self, root: Path) -> None:
        self.ksm, self.uksm, self.proc = root / "no-ksm", root / "uksm", root / "proc"
        self.uksm.mkdir()
        (self.proc / "47").mkdir(parents=True)
        for name, text in FILES.items():
            (self.uksm / name).write_text(text)
        self.zero_pages(211)
        # That label stands behind another counter's number from Linux 4.8 on.
        (self.proc / "vmstat").write_text("nr_uksm_zero_pages 999983\ncow_ksm 23\n")
        (self.proc / "47" / "comm").write_text("uksmd\n")
        (self.proc / "47" / "cmdline").write_text("")
        self.cpu(1_500_000_007)

    def zero_pages(self, pages: int) -> None:
        """So many are mapped to UKSM's zero page."""
        kib = pages * host.PAGE_BYTES // 1024
        text = f"MemTotal:       8000000 kB\nKsmZeroPages:     {kib:>8} kB\nBounce: 0 kB\n"
        (self.proc / "meminfo").write_text(text)

    def cpu(self, ns: int) -> None:
        """What uksmd has spent."""
        (self.proc / "47" / "schedstat").write_text(f"{ns} 5 5\n")

    def put(self, **texts: str) -> None:
        """Change files of sysfs."""
        for name, text in texts.items():
            (self.uksm / name).write_text(text + "\n")

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process take it for its host."""
        monkeypatch.setattr(host, "KSM", self.ksm)
        monkeypatch.setattr(host, "UKSM", self.uksm)
        monkeypatch.setattr(uksm, "PROC", self.proc)

    def script(self) -> str:
        """Python that lets another process take it for its host, then be `ksmtrace`."""
        return (
            "import sys\nfrom pathlib import Path\n"
            "from ksmtrace.kernel import host, uksm\n"
            f"host.KSM = Path({str(self.ksm)!r})\nhost.UKSM = Path({str(self.uksm)!r})\n"
            f"uksm.PROC = Path({str(self.proc)!r})\n"
            "from ksmtrace.cli.main import main\nsys.exit(main(sys.argv[1:]))\n"
        )
