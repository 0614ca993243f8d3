# flexq: what can be made. `make` alone lists it.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# an environment that takes from $(VENV) what it does not have itself
COMPAT := $(VENV)/compat
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test rust python lint compat sanitize wheel develop ptx ptx-check bench clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

demo: $(VENV)/.demo wheel ## build, then pack, verify, open and run the model in the project
	$(BIN)/python -m flexq demo

test: rust lint python ## every check: Rust and Python, lints, types, documents

rust: ## Rust: format, lints, tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	cargo test --workspace --quiet

lint: $(VENV)/.dev wheel ## Python: format, lints, types, stubs against the built module
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --allowlist tests/stubtest-allowlist.txt flexq._flexq

python: $(VENV)/.dev wheel ## Python: tests of the installed wheel
	$(BIN)/python -m pytest

compat: $(VENV)/.dev wheel ## the tests of transformers again, with the oldest release supported
	@test -x $(COMPAT)/bin/python || $(BIN)/python -m venv $(COMPAT)
	@$(BIN)/python -c 'import site; print(f"import site; site.addsitedir({site.getsitepackages()[0]!r})")' \
	    > "$$($(COMPAT)/bin/python -c 'import site; print(site.getsitepackages()[0])')/zz_base.pth"
	$(COMPAT)/bin/python -m pip install --quiet "transformers==5.17.*"
	$(COMPAT)/bin/python -m pytest tests/transformers

# RUSTC_BOOTSTRAP lets the stable compiler take the sanitizer's flag
sanitize: ## the tests of flexq-core under the address sanitizer
	RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address cargo test --quiet -p flexq-core --lib --tests \
	    --target $$(rustc -vV | sed -n 's/host: //p') --target-dir target/sanitize

wheel: $(VENV)/.build ## build the wheel and install it into $(VENV)
	rm -f dist/*.whl
	$(BIN)/maturin build --release --quiet --out dist
	$(BIN)/pip install --quiet --force-reinstall --no-deps dist/*.whl

develop: $(VENV)/.dev ## install the sources in place: Python edits need no rebuild
	$(BIN)/maturin develop --release --quiet

# `test` compares the hash of kernels/ that build.py wrote beside the PTX with that of the sources
# (tests/test_ptx.py): seconds, no compiler. The compilers are pinned, so equal sources give equal
# PTX; `ptx-check` proves it by compiling everything again, some minutes on two cores.
ptx: $(VENV)/.ptx ## compile kernels/ into the PTX that the crate embeds
	$(BIN)/python kernels/build.py

ptx-check: $(VENV)/.ptx ## compile kernels/ again and compare with the PTX that is committed
	$(BIN)/python kernels/build.py --check

bench: $(VENV)/.dev wheel ## time packing and products on this machine
	cargo bench -p flexq-core

clean: ## remove everything that was built
	rm -rf target dist $(VENV) demo-out

# one stamp per list of packages in pyproject.toml
$(VENV)/.%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group $*
	@touch $@
