# Everything a newcomer or a CI machine types. Needs make and Python 3.11 or newer; uses uv where it is installed.
#   PYTHON=python3.12 make demo    picks the Python
#   PYTEST="-k cli -x" make test   passes arguments on
#   WORKERS=4 make test            runs that many tests at once (0: one after the other)

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test chaos lint bench clean

VENV := .venv
RUN := $(VENV)/.installed
DEV := $(VENV)/.installed-dev
# Half of the tests' time is waiting: three of them keep two cores busy.
WORKERS ?= 3

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: $(RUN) ## Install, start two embedded engines and the proxy, and print an address and three logins
	@exec $(VENV)/bin/comfy-cluster demo $(DEMO)

test: $(DEV) ## Install and run all tests
	@$(VENV)/bin/python -m tests.chromium
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadscope $(PYTEST)

chaos: $(DEV) ## Kill, hang and restart engines, proxy, sessions and database under load for 10 minutes, then count (CHAOS="--minutes 2 --seed 1")
	@exec $(VENV)/bin/python -m tests.system.chaos $(CHAOS)

lint: $(DEV) ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(RUN) ## Measure this machine: what a job and a forwarded request cost through the proxy
	@exec $(VENV)/bin/comfy-cluster bench $(BENCH)

clean: ## Remove what make has installed and the demo's data
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A stamp that is newer than what it was made from makes every further call start at once.
$(RUN): pyproject.toml constraints.txt
	@EXTRAS= ; $(install)
	@touch $@

$(DEV): pyproject.toml constraints.txt
	@EXTRAS='[test,lint]' ; $(install)
	@touch $(RUN) $@

define install
set -eu; \
fail() { echo "make: $$1" >&2; exit 2; }; \
usable() { command -v "$$1" >/dev/null 2>&1 && "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }; \
say() { echo "Installing into $(VENV) with $$1 (the first time only) ..."; }; \
if command -v uv >/dev/null 2>&1; then \
	say uv; \
	[ -x $(VENV)/bin/python ] || uv venv -q --python "$${PYTHON:->=3.11}" $(VENV); \
	uv pip install -q --python $(VENV)/bin/python -c constraints.txt -e ".$$EXTRAS"; \
else \
	if ! { [ -x $(VENV)/bin/python ] && $(VENV)/bin/python -m pip --version >/dev/null 2>&1; }; then \
		found=; \
		for python in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
			if usable "$$python"; then found=$$python; break; fi; \
		done; \
		[ -n "$$found" ] || fail "Python 3.11 or newer is missing: install python3, or name one as PYTHON=..., or install uv."; \
		"$$found" -c 'import ensurepip, venv' 2>/dev/null || \
			fail "Python's venv module is missing: install the package python3-venv, or uv."; \
		"$$found" -m venv --clear $(VENV); \
	fi; \
	say pip; \
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".$$EXTRAS"; \
fi
endef
