# `make` alone says what there is.
PY := .venv/bin/python
CLANG ?= clang
LLVM_STRIP ?= llvm-strip
BPF_CFLAGS := -O2 -g -fdebug-prefix-map=$(CURDIR)=. -target bpf -mcpu=v3 -Wall -Werror -I/usr/include/$(shell uname -m)-linux-gnu

.PHONY: help
help:	## say what there is
	@echo "ksmtrace: see what Linux Kernel Samepage Merging does"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

.venv/.set-up-use: pyproject.toml scripts/setup
	@scripts/setup use

.venv/.set-up-dev: pyproject.toml scripts/setup scripts/bcc-headers
	@scripts/setup dev

.PHONY: demo
demo: .venv/.set-up-use	## set up, trace the real ksmd on a small workload, report
	@$(PY) -m ksmtrace.cli.demo

.PHONY: test
test: .venv/.set-up-dev	## set up; lint, types, all tests, live where possible
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .
	@$(PY) -m ksmtrace.model.fast & compiling=$$!; $(PY) -m mypy && wait $$compiling
	@$(PY) -m pytest -n auto --durations 12 tests --ignore=tests/live --ignore=tests/kernels
	@scripts/live-rings

.PHONY: bpf
bpf: .venv/.set-up-dev	## build the BPF objects, the event header and the generated docs
	@$(PY) scripts/generate.py
	$(CLANG) $(BPF_CFLAGS) -c bpf/ksm.bpf.c -o bpf/ksm.bpf.o
	$(CLANG) $(BPF_CFLAGS) -c bpf/ksm.fentry.bpf.c -o bpf/ksm.fentry.bpf.o
	$(LLVM_STRIP) -g bpf/ksm.bpf.o bpf/ksm.fentry.bpf.o

.PHONY: bench-capture
bench-capture: .venv/.set-up-dev	## capture side by side: this, perf, bcc, bpftrace (root)
	@$(PY) bench/capture.py

.PHONY: bench-contests
bench-contests: .venv/.set-up-dev	## KSM and UKSM on six workloads, under three protocols
	@$(PY) bench/contests.py --write; $(PY) scripts/generate.py

.PHONY: bench-costs
bench-costs: .venv/.set-up-dev	## ksmd's CPU time, predicted from counted work and measured (root)
	@$(PY) bench/costs_reality.py

.PHONY: bench-cow
bench-cow: .venv/.set-up-dev	## what watching writes to merged pages costs (root)
	@$(PY) bench/cow.py

.PHONY: bench-estimate
bench-estimate: .venv/.set-up-dev	## how fast memory is read and digested, in what memory (root)
	@$(PY) bench/estimate.py

.PHONY: bench-estimate-reality
bench-estimate-reality: .venv/.set-up-dev	## estimates of real workloads, and what ksmd reached (root)
	@$(PY) bench/estimate_reality.py --write; $(PY) scripts/generate.py

.PHONY: bench-exporter
bench-exporter: .venv/.set-up-dev	## what a scrape costs with thousands of processes (root)
	@$(PY) bench/exporter.py

.PHONY: bench-model
bench-model: .venv/.set-up-dev	## page visits a second of the model, and of the real ksmd (root)
	@$(PY) bench/model.py

.PHONY: bench-scale
bench-scale: .venv/.set-up-dev	## full scans of hosts up to a terabyte; readable engine, ksmd (root)
	@$(PY) bench/scale.py
	@$(PY) bench/scale.py --converge

.PHONY: bench-timeline
bench-timeline: .venv/.set-up-dev	## from ten million events on disk to all tables; live load (root)
	@$(PY) bench/timeline.py --times 3
	@$(PY) bench/live_timeline.py

.PHONY: bench-views
bench-views: .venv/.set-up-dev	## top: first paint, CPU; pages: time, size, opening (root)
	@$(PY) bench/views_top.py
	@$(PY) bench/views_html.py

.PHONY: bench-whatif
bench-whatif: .venv/.set-up-dev	## settings predicted, and what ksmd then did (root)
	@$(PY) bench/whatif_reality.py --write; $(PY) scripts/generate.py

.PHONY: test-kernels
test-kernels: .venv/.set-up-dev	## 6.1, 6.12 and this host, 800 scenarios each (root)
	@$(PY) bench/kernels.py --write; status=$$?; $(PY) scripts/generate.py; exit $$status

.PHONY: vm
vm: .venv/.set-up-dev	## KERNEL=6.1 SCENARIO=forks: boot it, run it step by step
	@$(PY) -m ksmtrace.cli.main lab run --step --on vm:$(or $(KERNEL),6.12) --on model \
		$(or $(SCENARIO),why-two-scans)

.PHONY: corruptions
corruptions: .venv/.set-up-dev	## spoil recordings: does replay --check find it?
	@$(PY) bench/corruptions.py
	@$(PY) bench/corruptions_predicted.py

.PHONY: fidelity
fidelity: .venv/.set-up-dev	## the model against the real ksmd, 2,100 random scenarios (root)
	@$(PY) bench/fidelity.py

.PHONY: recordings
recordings: .venv/.set-up-dev	## make the recordings anew, or ONLY="some" (root)
	@$(PY) scripts/recordings.py $(ONLY)

.PHONY: clean
clean:	## remove what was built and set up here
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
