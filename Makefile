# What can be made here; `make` alone lists it. Each target does all of its own set-up.

VENV = .venv
PYTHON ?= python3
PYTEST_ARGS ?=
TOOLS = $(VENV)/tools
PYTEST = packaging/with-tools $(TOOLS) $(VENV)/bin/python -m pytest
IS_ROOT := $(filter 0,$(shell id -u))
ALONE = tests/crash/test_window.py $(if $(IS_ROOT),$(wildcard $(patsubst %,tests/host/test_%.py,interrupted random_kills restarts window)))
LONGEST = tests/crash/test_virtual_machine.py $(if $(IS_ROOT),tests/host/test_pinned.py)
PAIRED = $(filter-out $(ALONE) $(LONGEST),$(wildcard tests/crash/test_*.py $(if $(IS_ROOT),tests/host/test_*.py)))

export PREFIX DESTDIR PYTHON

.DEFAULT_GOAL := help
.PHONY: help completions demo test soak bench lint venv test-packages deb deb-check rpm-check wheel wheel-check install uninstall clean

help: ## Lists what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 16

demo: ## A site, a web server and swapd in a scratch directory, without root; DEMO=once ends by itself
	@$(PYTHON) packaging/bootstrap-venv $(VENV) --editable .
	@$(VENV)/bin/swapd demo $(if $(filter once,$(DEMO)),--once)

# The rings are pyproject.toml's testpaths. Without root, hosts cannot be booted. Kills and hosts are two at a time, each
# file of tests as a whole, and those that take longest begin; where it counts for how long httpd stays stopped, they
# have the machine for themselves.
test: venv ## Everything that can be tested here: with root all rings, without it all but the host
ifeq ($(IS_ROOT),0)
	@$(MAKE) --no-print-directory test-packages deb-check rpm-check wheel-check lint
else
	@$(MAKE) --no-print-directory test-packages lint
	@echo 'left out: the host ring (tests/host) and the checks of the packages. They boot a systemd host and install' \
		'packages, which needs root: sudo make test'
endif
	status=0; \
	$(PYTEST) --numprocesses auto --maxprocesses 4 $(PYTEST_ARGS) tests/unit tests/pipeline || status=$$?; \
	$(PYTEST) --numprocesses 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS) $(LONGEST) $(PAIRED) || status=$$?; \
	$(PYTEST) $(PYTEST_ARGS) $(ALONE) || status=$$?; \
	exit $$status

# The fuzzer is built for some Pythons only; without it, what it would guide goes by chance.
soak: venv test-packages ## The long runs that `make test` leaves out: kills, power cuts, fuzzing for SOAK_MINUTES
	-@$(PYTHON) packaging/bootstrap-venv $(VENV) --group fuzz
	$(PYTEST) -m soak --timeout 7200 $(PYTEST_ARGS)

# As root, like the hosts that it boots. BENCH=quick, or the name of one: BENCH='pause --quick'.
bench: venv test-packages ## What a pause and a deployment cost, and what visitors notice, beside other ways; BENCH=quick for a first look
	@$(VENV)/bin/python -m tests.benchmarks $(if $(filter quick,$(BENCH)),--quick,$(BENCH))

lint: venv ## ruff and mypy
	$(VENV)/bin/ruff check . packaging/bootstrap-venv packaging/launcher packaging/completions/generate
	$(VENV)/bin/ruff format --check . packaging/bootstrap-venv packaging/launcher packaging/completions/generate
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy packaging/bootstrap-venv

completions: venv ## What the shells complete, written anew from the commands
	$(VENV)/bin/python packaging/completions/generate | $(VENV)/bin/ruff format --line-length 120 - >$(VENV)/table.py
	mv $(VENV)/table.py swapd/completion/table.py

venv:
	@$(PYTHON) packaging/bootstrap-venv $(VENV) --group test --group lint --editable .

test-packages:
	@packaging/apt-needs packaging/test-packages $(TOOLS)

deb: ## The Debian package and its source package, into dist/
	@packaging/build-deb dist

deb-check: deb
	lintian --allow-root --fail-on error,warning dist/swapd_*.changes

rpm-check: ## What rpm and rpmlint say of the spec
	@packaging/rpm/check

wheel: ## A wheel and an sdist, into dist/
	@packaging/build-wheel dist

wheel-check: wheel
	@packaging/check-wheel dist

install: ## swapd on this host, as root; PREFIX for other than Debian, DESTDIR for makers of packages
	@packaging/install install

uninstall: ## swapd off this host; configuration, records and sites stay
	@packaging/install uninstall

clean: ## Removes what was made here
	rm -rf dist build .demo $(VENV)
	find . -name __pycache__ -prune -exec rm -rf {} +
