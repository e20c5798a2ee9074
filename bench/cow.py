"""What does `record --cow` cost the programs it watches?

make bench-cow
.venv/bin/python bench/cow.py --rounds 5 --json

A C program, compiled here, times four things in a loop: a system call that does nothing, the first
touch of a page, a copy on write after fork (no KSM page: the watcher has to find that out), and a
write to a merged page (an event). Each round runs it untraced, under `record`'s programs, and under
those with --cow, in turn; medians over the rounds, and their span. The reader of the ring sleeps
meanwhile. Not measured: many processors that fault at once, and programs that do other things.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ksmtrace.capture.core import CoreSource
from ksmtrace.capture.cow import CowWatch
from ksmtrace.errors import KsmtraceError
from ksmtrace.kernel.stepper import Stepper, parked

PROGRAM = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
enum { CALLS = 1000003, PAGES = 50021 };
static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}
static double touch(char *memory)
{
	double begin = now();
	for (long n = 0; n < PAGES; n++)
		memory[n * 4096]++;
	return (now() - begin) / PAGES;
}
static char *fresh(void)
{
	char *memory = mmap(0, PAGES * 4096L, 3, 0x22, -1, 0);
	madvise(memory, PAGES * 4096L, MADV_NOHUGEPAGE);
	return memory;
}
int main(void)
{
	char *memory = fresh(), *merged = fresh(), word;
	double begin = now(), call, first, copy;
	int ends[2], child;
	for (long n = 0; n < CALLS; n++)
		syscall(SYS_getppid);
	call = (now() - begin) / CALLS;
	first = touch(memory);
	if (pipe(ends))
		return 1;
	child = fork();
	if (!child) {
		close(ends[1]);
		_exit(read(ends[0], &word, 1));
	}
	copy = touch(memory);
	close(ends[1]);
	waitpid(child, 0, 0);
	munmap(memory, PAGES * 4096L);
	memset(merged, 7, PAGES * 4096L);
	madvise(merged, PAGES * 4096L, MADV_MERGEABLE);
	if (write(1, "m", 1) != 1 || read(0, &word, 1) != 1)
		return 1;
	printf("%f %f %f %f\n", call, first, copy, touch(merged));
	return 0;
}
"""
QUESTIONS = ("system call", "first touch", "copy after fork", "write to a merged page")
RING = 1 << 23


def measure(program: Path, stepper: Stepper) -> list[float]:
    """Nanoseconds of each question, once."""
    with subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.read(1)
        stepper.scan(3)
        process.stdin.write(b"w")
        process.stdin.close()
        return [float(word) for word in process.stdout.read().split()]


def rounds(count: int) -> dict[str, list[list[float]]]:
    """By tracer, a list of measurements."""
    found: dict[str, list[list[float]]] = {"none": [], "record": [], "record --cow": []}
    with tempfile.TemporaryDirectory() as folder, parked() as stepper:
        program = Path(folder) / "program"
        subprocess.run(
            ["cc", "-O2", "-xc", "-", "-o", program], input=PROGRAM, text=True, check=True
        )
        for _ in range(count):
            for tracer, results in found.items():
                watch = CowWatch() if tracer == "record --cow" else None
                source = CoreSource(watch)
                with nullcontext() if tracer == "none" else source.open(ring_bytes=RING):
                    results.append(measure(program, stepper))
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    try:
        found = rounds(args.rounds)
    except KsmtraceError as error:
        print(error.message, file=sys.stderr)
        return 1
    medians = {
        tracer: [statistics.median(column) for column in zip(*results, strict=True)]
        for tracer, results in found.items()
    }
    if args.json:
        print(json.dumps({"questions": QUESTIONS, "medians_ns": medians, "all_ns": found}))
        return 0
    table = Table("nanoseconds", *QUESTIONS, box=None)
    for tracer, numbers in medians.items():
        cells = []
        columns = zip(*found[tracer], strict=True)
        for number, untraced, column in zip(numbers, medians["none"], columns, strict=True):
            span = f"{min(column):.0f}–{max(column):.0f}"
            cells.append(f"{number:.0f} ({number / untraced:.2f}; {span})")
        table.add_row(tracer, *cells)
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
