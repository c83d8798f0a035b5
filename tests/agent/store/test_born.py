"""When a file came to be, against what the stat command says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hyperbox_agent.store.born import birth


def test_it_is_what_the_stat_command_says(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    os.utime(folder, (1, 1))
    said = subprocess.run(["stat", "--format", "%.9W", folder], check=True, capture_output=True,
                          text=True).stdout.strip()
    seconds, _, rest = said.partition(".")
    assert birth(str(folder)) == int(seconds) * 1_000_000_000 + int(rest or 0) > 0
    fd = os.open(folder, os.O_RDONLY)
    try:
        assert birth(fd) == birth(str(folder))
    finally:
        os.close(fd)


def test_of_a_name_in_a_folder_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    made = birth(str(tmp_path / "file"))
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(100_000):  # the clock of a file system ticks some 250 times a second
        (tmp_path / "link").symlink_to("file")
        if birth("link", folder) != made:
            break
        (tmp_path / "link").unlink()
    try:
        assert birth("file", folder) == made
        assert birth("link", folder) > made
        assert birth(str(tmp_path / "link")) == made
        assert birth("absent", folder) == 0
    finally:
        os.close(folder)


def test_what_is_not_there_has_no_birth(tmp_path: Path) -> None:
    assert birth(str(tmp_path / "absent")) == 0
