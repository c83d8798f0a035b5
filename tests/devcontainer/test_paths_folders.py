"""Folders of ours: where they are, and that nobody else can prepare them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyperbox_devcontainer.errors import InputError, PathsError
from hyperbox_devcontainer.paths import (
    SOCKET_LIMIT,
    Project,
    find_project,
    private_dir,
    private_tmp,
    project_home,
    runtime_dir,
    session_socket,
    state_dir,
    target_home,
)


def test_a_project_is_its_real_folder_whatever_way_leads_there(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    project = find_project(str(folder))
    assert project == find_project(str(tmp_path / "link")) == find_project(f"{folder}/../shop/")
    assert project.name == "shop"
    assert project.id.startswith("shop-")


def test_two_folders_of_the_same_name_are_two_projects(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "shop").mkdir(parents=True)
    assert find_project(str(tmp_path / "a/shop")).id != find_project(str(tmp_path / "b/shop")).id


def test_what_is_no_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is not a folder"):
        find_project(str(tmp_path / "file"))
    with pytest.raises(InputError, match="there is no such folder"):
        find_project(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["a\x1b]0;x\x07b", "bad\udcffname", "with space", "…", "-rf", ".x",
                                  "n" * 200, "..hidden"])
def test_any_name_gives_an_id_that_is_plain(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    project = find_project(str(folder))
    assert project.name == name
    assert project.id.isascii()
    assert project.id.isprintable()
    assert " " not in project.id
    assert project.id[0] not in "-."
    assert len(project.id) < 60


def test_values_that_are_not_absolute_count_as_unset(own_home: Path) -> None:
    environ = {"HOME": str(own_home), "XDG_STATE_HOME": "relative"}
    assert state_dir(environ) == f"{own_home}/.local/state/hyperbox"
    assert state_dir({**environ, "XDG_STATE_HOME": "/s"}) == "/s/hyperbox"


def test_without_a_home_the_user_database_or_tmp_is_taken() -> None:
    assert os.path.isabs(state_dir({}))


def test_without_a_runtime_folder_the_usual_one_or_a_private_one_is_taken(tmp_path: Path) -> None:
    assert runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)}) == f"{tmp_path}/hyperbox"
    usual = (f"/run/user/{os.getuid()}/hyperbox", private_tmp())
    assert runtime_dir({}) in usual
    assert runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path / "gone")}) in usual


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=150),
       st.text("xyz", max_size=150))
def test_a_sockets_path_always_fits(name: str, deep: str) -> None:
    project = Project(f"/{name}", name, f"{name[:40]}-12345678")
    path = session_socket(project, {"XDG_RUNTIME_DIR": "/tmp/" + deep})
    assert len(os.fsencode(path)) <= SOCKET_LIMIT


def test_a_private_folder_is_made_with_its_parents_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        path = private_dir(str(tmp_path / "a" / "b" / "c"))
    finally:
        os.umask(old)
    for folder in (path, str(tmp_path / "a" / "b"), str(tmp_path / "a")):
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert private_dir(path) == path


def test_a_folder_that_others_may_read_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    private_dir(str(folder))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("make", ["writable", "link", "file"])
def test_a_folder_that_somebody_else_prepared_is_refused(tmp_path: Path, make: str) -> None:
    path = tmp_path / "ours"
    if make == "writable":
        path.mkdir()
        path.chmod(0o777)
    elif make == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        path.symlink_to("theirs")
    else:
        path.write_text("")
    with pytest.raises(PathsError) as caught:
        private_dir(str(path))
    assert caught.value.hint


@pytest.mark.needs("root")
def test_somebody_elses_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ours"
    path.mkdir(mode=0o700)
    os.chown(path, 4242, 4242)
    with pytest.raises(PathsError, match="belongs to user 4242"):
        private_dir(str(path))


def test_a_place_where_nothing_can_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PathsError):
        private_dir(str(tmp_path / "file" / "below"))


def test_homes_of_targets_are_below_the_projects_own(tmp_path: Path) -> None:
    project = find_project(str(tmp_path))
    environ = {"XDG_STATE_HOME": "/s"}
    home = project_home(project, environ)
    assert target_home(project, "pi-7", environ) == f"{home}/target-pi-7"
    others = {target_home(project, name, environ) for name in ("pi_7", "pi 7", "pi/7", "../7")}
    assert len(others) == 4
    assert {os.path.dirname(path) for path in others} == {home}
