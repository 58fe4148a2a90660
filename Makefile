# The commands of the book; `make help` lists them. Each one first installs what it needs into .venv.

PYTHON  ?= python3
# What is published: about an hour of two quick cores, several of slow ones. `make book` alone takes a smaller one.
PROFILE ?= cpu
# Chapters at a time; each is a process of its own. Two suit two cores: more would share their caches and gain nothing.
JOBS    ?= 2
# The address of another package index to look in as well, e.g. the one with PyTorch's CPU builds (see the README).
INDEX   ?=

BIN   := .venv/bin
STAMP := .venv/.installed
# -W --keep-going: a warning fails the build, but only after all of them have been shown.
# -n: a reference that leads nowhere is a warning too.  --all: every page is written anew, so that no page keeps the
# numbers of an earlier run.  -q: warnings only.
BUILD := $(BIN)/jupyter-book build -W -n --keep-going --all -q --path-output .

BROWSER ?= $(firstword $(shell command -v chromium chromium-browser google-chrome 2>/dev/null))

.DELETE_ON_ERROR:
.PHONY: help install book lab html pdf epub site publish test test-web wheel bench gpu lint format clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "make %-10s %s\n", $$1, $$2 }'

install: $(STAMP)  ## install the package with all extras into .venv

# A stamp, not the folder: the folder's time changes with every file that is put into it.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    $(if $(INDEX),--extra-index-url $(INDEX)) -c constraints.txt -e '.[book,data,test,cluster]'
	@touch $@

# PROFILE=cpu on the command line beats this.
book lab: PROFILE := quick
book: $(STAMP)  ## execute what has changed into _build/ and build the site from there: _build/html/index.html
	$(BIN)/python book/execute.py --profile $(PROFILE) --jobs $(JOBS) --stage _build/site --changed
	$(BUILD) _build/site
	@echo "the book: _build/html/index.html"

# JupyterLab is nothing that the book needs, so it comes when it is asked for. A copy that is there is somebody's work.
lab: $(STAMP)  ## open the chapters in JupyterLab, set to few images: a copy, _build/lab, that is yours to change
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt jupyterlab
	test -d _build/lab || $(BIN)/python book/execute.py --profile $(PROFILE) --prepare _build/lab \
	    || { rm -rf _build/lab; exit 1; }
	$(BIN)/jupyter lab _build/lab/book

html: $(STAMP)  ## build the site from the committed notebooks, without executing anything
	$(BUILD) .
	@echo "the book: _build/html/index.html"

pdf: $(STAMP)  ## the published pages as _build/book.pdf, printed by chromium
	@test -n "$(BROWSER)" || { echo "pdf: no chromium or chrome in the PATH (Debian: apt install chromium)"; exit 1; }
	$(BIN)/jupyter-book build --all -q --path-output . --builder singlehtml .
	$(BIN)/python book/print.py _build/singlehtml _build/book.pdf --browser $(BROWSER)

epub: $(STAMP)  ## the published pages as _build/book.epub
	$(BIN)/jupyter-book build --all -q --path-output . --builder custom --custom-builder epub .
	cp _build/epub/book.epub _build/book.epub
	@echo "the book: _build/book.epub"

# In this order: the pages say how large the files are.
site: $(STAMP)  ## what goes online: _build/html, and in it the PDF and the ePub, with links to them
	$(MAKE) pdf
	$(MAKE) epub
	BOOK_FILES='_build/book.pdf _build/book.epub' $(MAKE) html

publish: $(STAMP)  ## execute, then write notebooks and results into book/: make publish PROFILE=cpu
	$(BIN)/python book/execute.py --profile $(PROFILE) --jobs $(JOBS) --stage _build/site --publish
	$(BIN)/python book/_ext/front.py

# Side by side; tests/conftest.py says which tests stay together, and which come first.
test: $(STAMP)  ## unit tests and the tests of the book
	$(BIN)/python -m pytest -n $(JOBS)

# The browser is the system's; what drives it comes from npm, into _build.
test-web: $(STAMP)  ## the built pages in a browser, on a desk and on a phone; skipped where there is none
ifeq ($(and $(BROWSER),$(shell command -v npm)),)
	@echo "test-web: skipped, for want of chromium and npm (Debian: apt install chromium npm)"
else
	$(MAKE) html
	mkdir -p _build/web && cp tests/web/package.json _build/web/
	if npm install --prefix _build/web --silent --no-audit --no-fund --no-package-lock; \
	then CHROMIUM=$(BROWSER) node tests/web/check.mjs; \
	else echo "test-web: skipped, since npm cannot fetch what is in tests/web/package.json"; fi
endif

wheel: $(STAMP)  ## build the wheel, and try it without what only notebooks need
	$(BIN)/python -m pytest -m slow tests/test_wheel.py

bench: $(STAMP)  ## measure the figures that the project promises
	$(BIN)/python -m tests.bench

gpu: $(STAMP)  ## what a GPU alone can tell, nine minutes of it at a time: again until all is done
	$(BIN)/python tests/gpu.py

lint: $(STAMP)  ## rules, format and types of the package, the tests and the chapters' code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python book/lint.py
	$(BIN)/basedpyright

format: $(STAMP)  ## mend and format the same code in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python book/lint.py --format

clean:  ## remove everything that was built, _build/lab and your changes there too; .venv stays
	rm -rf _build .pytest_cache .ruff_cache .hypothesis
