"""A host of files: sysfs, vmstat and /proc as folders, so that any kernel can be played."""

from __future__ import annotations

import shutil
from pathlib import Path

KSM = {
    "full_scans": "17", "pages_shared": "3", "pages_sharing": "101", "pages_unshared": "7",
    "pages_volatile": "5", "pages_scanned": "1009", "pages_skipped": "13", "ksm_zero_pages": "11",
    "stable_node_chains": "0", "stable_node_dups": "0", "general_profit": "-8192", "run": "1",
    "pages_to_scan": "100", "sleep_millisecs": "20", "merge_across_nodes": "1",
    "max_page_sharing": "256", "stable_node_chains_prune_millisecs": "2000",
    "use_zero_pages": "0", "smart_scan": "1", "advisor_mode": "none [scan-time]",
    "advisor_max_cpu": "70", "advisor_min_pages_to_scan": "500",
    "advisor_max_pages_to_scan": "30000", "advisor_target_scan_time": "200",
}  # fmt: skip


class FakeHost:
    """Files that read as the kernel's do."""

    def __init__(self, root: Path) -> None:
        self.ksm, self.proc, self.vmstat = root / "ksm", root / "proc", root / "vmstat"
        self.ksm.mkdir()
        self.proc.mkdir()
        for name, text in KSM.items():
            (self.ksm / name).write_text(text + "\n")
        self.vmstat.write_text("nr_free_pages 1\ncow_ksm 23\nksm_swpin_copy 2\n")
        self.process(37, comm=b"ksmd", arguments=b"", stat=None)
        (self.proc / "37" / "schedstat").write_text("1500000000 5 5\n")

    def process(
        self,
        tgid: int,
        *,
        merging: int = 0,
        items: int = 0,
        profit: int = 0,
        registered: bool = True,
        comm: bytes = b"python3",
        arguments: bytes = b"python3\0job.py\0",
        cgroup: str = "/a",
        start: int = 1,
        stat: str | None = "",
    ) -> None:
        """Put a process there, or change it. stat: ksm_stat's text, None: it can't be read."""
        here = self.proc / str(tgid)
        here.mkdir(exist_ok=True)
        (here / "stat").write_bytes(
            b"%d (%s) S 1 1 1 0 -1 0" % (tgid, comm) + b" 0" * 12 + b" %d 0\n" % start
        )
        (here / "comm").write_bytes(comm + b"\n")
        (here / "cmdline").write_bytes(arguments)
        (here / "cgroup").write_text(f"0::{cgroup}\n")
        said = (
            f"ksm_rmap_items {items}\nksm_zero_pages 2\nksm_merging_pages {merging}\n"
            f"ksm_process_profit {profit}\nksm_merge_any: {'yes' if registered else 'no'}\n"
            f"ksm_mergeable: {'yes' if registered else 'no'}\n"
        )
        if stat is not None:
            (here / "ksm_stat").write_text(stat or said)

    def remove(self, tgid: int) -> None:
        """Let it exit."""
        shutil.rmtree(self.proc / str(tgid))
