# What this project can do; `./dev RECIPE ARGS…` brings the tools and runs a recipe.

set positional-arguments

# What a shell may have set would hide faults: our own code must see to buffering and bytecode.
unexport PYTHONDONTWRITEBYTECODE
unexport PYTHONUNBUFFERED
unexport VIRTUAL_ENV

# More than this project's smallest machine has cores: the journeys wait as long as they work.
jobs := env("HYPERBOX_TEST_JOBS", "3")
# The command runs from this environment, but the user's project must not take it for its own: its
# folder is the first on PATH here and is taken off again.
venv := justfile_directory() / ".venv/bin"
# The uv that runs us: it may stand in .dev/, off PATH.
uv := env("UV", "uv")

[private]
default:
    @just --justfile "{{justfile()}}" --list --unsorted

# Show a save going live in half a minute (--json for scripts)
[no-cd]
demo *ARGS:
    @PATH="${PATH#"{{venv}}:"}" exec "{{venv}}/hyperbox" demo "$@"

# Run the tests; --all adds the slow ones, --strict also fails where this machine lacks something
test *ARGS:
    #!/bin/sh
    set -eu
    for arg do
        shift
        case $arg in
            --strict) set -- "$@" --strict-needs ;;
            *) set -- "$@" "$arg" ;;
        esac
    done
    exec pytest -n "{{jobs}}" --dist worksteal "$@"

# Run the agent's and the packs' tests on another Python, outside the lock
test-on PYTHON *ARGS:
    @shift; "{{uv}}" run --quiet --no-project --isolated --python "{{PYTHON}}" \
        --refresh-package hyperbox-agent --refresh-package hyperbox-langpacks \
        --with ./agent --with ./langpacks \
        --with pytest --with pytest-asyncio --with pytest-xdist --with hypothesis \
        pytest -p no:cacheprovider -n "{{jobs}}" "$@" tests/agent tests/langpacks

# Print the path of a Python that runs: 3.10, newest, …
[private]
python WHICH:
    @python tests/pythons.py "{{WHICH}}"

# Lint, types, floors between the rooms, lock file
check:
    "{{uv}}" lock --check --quiet
    ruff check .
    mypy
    lint-imports

# Run the hyperbox command of this checkout in the current folder
[no-cd]
hyperbox *ARGS:
    @PATH="${PATH#"{{venv}}:"}" exec "{{venv}}/hyperbox" "$@"

# Measure against the peers and write docs/benchmarks.md (./dev bench --help)
bench *ARGS:
    @"{{uv}}" run --quiet --all-packages --group dev --group bench python -m bench "$@"

# Check that HyperBox is so many times as fast as its rivals (1 to 2 minutes; CI does it too)
ratios *ARGS:
    @"{{just_executable()}}" --justfile "{{justfile()}}" jobs=0 test --all -rP tests/bench/test_ratios.py "$@"

# Build a wheel of each room into dist/
wheels:
    "{{uv}}" build --quiet --all-packages --wheel --out-dir dist

# Write the generated parts of docs/ and CHANGELOG.md
docs *ARGS:
    @python docs/generate.py "$@"
    @case "$*" in ""|--check) python -m hyperbox_tui.cli.docs "$@" ;; esac

# Draw what the demo prints, for the README (on a quiet machine: the times are those of this run)
picture:
    @PATH="${PATH#"{{venv}}:"}" exec "{{venv}}/python" docs/picture.py
