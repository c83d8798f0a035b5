"""How the pack starts the program and the worker, with the shim in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipapp
from pathlib import Path

import pytest
from packrun import PUBLIC, Bench, WorkerEnd, wait_for

from hyperbox_langpacks.base import Command, Detection, PackError
from hyperbox_langpacks.python import PACK
from hyperbox_langpacks.python.files import runtime_sources, shim_folder
from hyperbox_langpacks.view import FolderView


def found(*argv: str, **env: str) -> Detection:
    return Detection("python", Command(argv, env), "", 1.0, interpreter=argv[0])


def test_the_shim_comes_first_and_the_users_path_behind_it(made: Bench) -> None:
    spec = PACK.launch(FolderView(str(made.root)), found(sys.executable, "app.py",
                                                         PYTHONPATH="/opt/lib", A="1"),
                       PUBLIC, str(made.code))
    assert spec.argv == (sys.executable, "app.py")
    ours = {"PYTHONPATH": f"{made.shim}:/opt/lib", "PYTHONUNBUFFERED": "1", "A": "1"}
    assert spec.env.items() >= ours.items()
    assert spec.port_mapped


def test_an_older_tree_is_run_by_its_own_source(tmp_path: Path) -> None:
    """The environment's link to an editable project leads to the tree that is edited."""
    edited, older = tmp_path / "edited", tmp_path / "older"
    site = edited / ".venv/lib/python3.11/site-packages"
    site.mkdir(parents=True)
    (site / "_shop.pth").write_text(f"{edited}/src\n{edited}\n/opt/other\nimport x\n")
    (edited / ".venv/bin").mkdir()
    python = edited / ".venv/bin/python"
    python.write_text("")
    for tree in (edited, older):
        (tree / "src/shop").mkdir(parents=True)
        (tree / "pyproject.toml").write_text("[project]\nname = 'shop'\n")

    def behind_the_shim(tree: Path, entries: str) -> list[str]:
        command = found(str(python), "-m", "shop", PYTHONPATH=entries)
        env = PACK.launch(FolderView(str(tree)), command, PUBLIC, str(tmp_path)).env
        return env["PYTHONPATH"].split(":")[1:]

    assert behind_the_shim(edited, "src") == [f"{edited}/src"]
    assert behind_the_shim(older, "src") == behind_the_shim(older, "") == [
        f"{older}/src", str(older)]
    (older / "pyproject.toml").write_text("[project]\nname = 'borrower'\n")
    assert behind_the_shim(older, "") == []


@pytest.mark.parametrize("options", [("-I",), ("-E", "-u"), ("-X", "dev", "-sE")])
@pytest.mark.parametrize("what", [("app.py", "a"), ("-c", "import app", "a"), ("-m", "app", "a")])
def test_an_interpreter_that_ignores_pythonpath_still_has_the_shim(
        made: Bench, options: tuple[str, ...], what: tuple[str, ...]) -> None:
    # Without the shim the port would be that very one, which somebody else may have.
    made.write("app.py", "import http.server, os, sys\n"
                         "port = 8123\n"
                         "if os.environ.get('SERVE'):\n"
                         "    s = http.server.HTTPServer(('127.0.0.1', port), None)\n"
                         "    port = s.server_address[1]\n"
                         "    s.server_close()\n"
                         "print(port, sys.argv[1:], len(sys.path))\n")
    argv = (sys.executable, *options, *what)
    spec = PACK.launch(FolderView(str(made.root)), found(*argv), PUBLIC, str(made.code))
    assert spec.port_mapped
    if "-I" in options and what[0] != "app.py":
        return  # An isolated interpreter can't import from the folder it is started in.
    status, out = made.run(*spec.argv, SERVE="yes")
    assert (status, out) == made.run(*argv, PYTHONPATH="", HYPERBOX_ROOT="")
    assert out.startswith("8123 ['a'] ")
    assert made.control.port() != PUBLIC


def test_such_a_program_can_be_forked_too(made: Bench) -> None:
    made.write("app.py", "open('x', 'w').close()\nprint('ran')\n")
    view, command = FolderView(str(made.root)), found(sys.executable, "-I", "app.py")
    launched = PACK.launch(view, command, PUBLIC, str(made.code))
    spec = PACK.worker(view, command, str(made.code))
    assert spec is not None
    worker = WorkerEnd(made, *spec.argv[:-1])
    forked = worker.fork(*launched.argv[1:])
    forked.let_go()
    assert forked.output() == "ran\n"
    wait_for(lambda: made.control.named("wrote"))
    assert len(made.control.named("wrote")) == 1


def test_a_server_that_binds_outside_python_is_given_a_port(made: Bench) -> None:
    argv = ("/v/bin/python", "-m", "granian", "--port", "8123", "--interface", "asgi", "x:app")
    spec = PACK.launch(FolderView(str(made.root)), found(*argv), PUBLIC, str(made.code))
    assert spec.argv == ("/v/bin/python", "-m", "granian", "--port", "{port}", "--interface",
                         "asgi", "x:app")
    assert not spec.port_mapped


def test_the_worker_has_the_programs_options_and_its_part_of_the_path(made: Bench) -> None:
    made.write("src/shop/__init__.py", "")
    command = found(sys.executable, "-X", "dev", "tools/run.py")
    spec = PACK.worker(FolderView(str(made.root)), command, str(made.code))
    assert spec is not None
    assert spec.argv == (sys.executable, "-X", "dev", f"{made.shim}/worker.py")
    told = json.loads(spec.env["HYPERBOX_WORKER_SPEC"])
    root = str(made.root)
    assert told == {"root": root, "code": str(made.code), "options": ["-X", "dev"],
                    "main": f"{made.shim}/worker.py", "path": [root, f"{root}/tools",
                                                              f"{root}/src"]}


def test_without_an_interpreter_there_is_no_worker(made: Bench) -> None:
    detection = Detection("python", Command(("./run",)), "", 0.5)
    assert PACK.worker(FolderView(str(made.root)), detection, str(made.code)) is None


def test_what_is_gated(made: Bench) -> None:
    assert [path for path in ("a.py", "b/c.pyw", "conf.json", "pyproject.toml", "README.md",
                              "tests/x.json", "pkg/tests/x.json", ".vscode/settings.json",
                              "tsconfig.json", "tests/test_x.py", "a.pyc")
            if PACK.wants_gate(path)] == ["a.py", "b/c.pyw", "conf.json", "pyproject.toml",
                                          "tests/test_x.py"]


# ---------------------------------------------------------------------------------- the folder


def test_the_folder_is_written_once_and_whole(tmp_path: Path) -> None:
    folder = Path(shim_folder(str(tmp_path)))
    assert folder.parent == tmp_path
    sources = runtime_sources()
    assert {"sitecustomize.py", "worker.py", "run.py", "_hyperbox/shim.py"} <= set(sources)
    assert {place: (folder / place).read_bytes() for place in sources} == sources
    (folder / "_hyperbox" / "shim.py").write_text("# kept")
    assert shim_folder(str(tmp_path)) == str(folder)
    assert (folder / "_hyperbox" / "shim.py").read_text() == "# kept"
    # A folder that was cut short by a crash lacks its last file, and is completed.
    (folder / "worker.py").unlink()
    shim_folder(str(tmp_path))
    assert (folder / "_hyperbox" / "shim.py").read_bytes() == sources["_hyperbox/shim.py"]


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PackError, match="the shim can't be written to") as caught:
        shim_folder(str(tmp_path / "file"))
    assert caught.value.file is not None


def test_the_shim_is_written_from_within_an_archive(tmp_path: Path) -> None:
    """On a target the packs lie in a ``.pyz``."""
    import hyperbox_langpacks

    package = Path(hyperbox_langpacks.__file__).parent
    source = tmp_path / "source"
    for file in package.rglob("*.py"):
        target = source / "hyperbox_langpacks" / file.relative_to(package)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (source / "__main__.py").write_text(
        "import sys, os\nfrom hyperbox_langpacks.registry import find_pack, pack_names\n"
        "from hyperbox_langpacks.view import FolderView\n"
        "assert pack_names() == ('python',), pack_names()\n"
        "view = FolderView(sys.argv[1])\n"
        "pack, found = find_pack(view, os.environ)\n"
        "print(pack.launch(view, found, 1, sys.argv[2]).env['PYTHONPATH'])\n")
    archive = tmp_path / "a.pyz"
    zipapp.create_archive(source, archive)
    project, code = tmp_path / "p", tmp_path / "c"
    project.mkdir()
    code.mkdir()
    (project / "app.py").write_text("print(1)\n")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    out = subprocess.check_output([sys.executable, "-I", "-S", str(archive), str(project),
                                   str(code)], text=True, env=env)
    assert out.strip() == shim_folder(str(code))
