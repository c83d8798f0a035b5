"""A file that is not sent because it is ignored, and that the program looks for, is named."""

from __future__ import annotations

from pathlib import Path

from journey import BASE_APP, Project

LOOKS = '''\
for name in (".env", "never.cfg"):
    try:
        open(name).close()
    except FileNotFoundError:
        pass
'''


def test_an_ignored_file_that_a_mirrored_program_opens_is_named(tmp_path: Path) -> None:
    project = Project(tmp_path, mode="mirror")
    project.write(".gitignore", ".env\n")
    project.write(".env", "SECRET=1\n")
    project.write("app.py", LOOKS + BASE_APP)
    with project.up() as up:
        named = up.wait(lambda event: event.get("event") == "problem")
        assert named["path"] == ".env"
        assert named["hint"] == '[sync] include = [".env"] sends it, from the next `hyperbox up` on'
        assert [one["path"] for one in project.target()["problems"]] == [".env"]
