# The few things a person does here. Everything is idempotent: what is there already is not done again.
.DEFAULT_GOAL := help
ARGS ?=
# Only one that a person names is passed on; else the stack is that of the file with the servers.
NAMED := $(if $(STACK),--stack=$(STACK))
# It is a key at the beginning of a line, or in the braces of a whole file in flow style: labels may be called stack, too.
STACK ?= $(shell sed -n "s/^[\"']\{0,1\}stack[\"']\{0,1\} *: *[\"']\{0,1\}\([a-z]\{1,\}\).*/\1/p; \
	/^{/,\$$ s/^[^\#]*[{, ][\"']\{0,1\}stack[\"']\{0,1\} *: *[\"']\{0,1\}\([a-z]\{1,\}\).*/\1/p" servers.yml | head -n 1)
PYTHON ?= python3
PYTEST := .venv/bin/python -m pytest

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20
	@echo
	@echo '  make scenarios ARGS="-k consul --keep-cluster"    passes arguments on to pytest'
	@echo '  make scenarios ARGS="-m smoke"                    the core of every plane, in two minutes'
	@echo '  make scenarios STACK=vagrant                      runs them on another stack'

scenarios: setup ## boot the cluster of servers.yml and prove its promises
	bin/as-root $(if $(filter vagrant,$(STACK)),bin/with-libvirt) $(PYTEST) scenarios $(NAMED) $(ARGS)

test: setup ## lint, types, unit, property and harness tests of swarmer itself
	bin/as-root $(PYTEST) tests $(ARGS)

long: setup ## what takes minutes each, of both: the marks `long`
	bin/as-root $(if $(filter vagrant,$(STACK)),bin/with-libvirt) $(PYTEST) scenarios -m long --size 5 $(NAMED) $(ARGS)
	bin/as-root $(PYTEST) tests -m long $(ARGS)

mutants: setup ## break the protections one at a time, and see which test notices
	cd tests && ../bin/as-root ../.venv/bin/python -m mutants $(ARGS)

test: STACK := nspawn vagrant
setup: ## install what is missing: apt packages, .venv, the node image
	@sh bin/setup '$(PYTHON)' $(STACK)

clean: ## remove what setup and runs made in this folder; clusters and images stay
	bin/as-root rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info runs
	bin/as-root find . -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help scenarios test long mutants setup clean
