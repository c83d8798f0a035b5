"""A command as one string needs a shell only where a shell would read it otherwise."""

from __future__ import annotations

import pytest

from hyperbox_agent.core.words import argv_of


@pytest.mark.parametrize("command", [
    "gunicorn -w 2 shop:app", ".venv/bin/python manage.py runserver 0.0.0.0:{port}",
    "uvicorn  shop.web:app\t--port 8000"])
def test_plain_words_need_no_shell(command: str) -> None:
    assert argv_of(command) == tuple(command.split())


@pytest.mark.parametrize("command", [
    "cd web && python app.py", "exec python app.py", "DEBUG=1 python app.py", "python 'my app.py'",
    "python app.py > log", "python $APP", "python *.py", "~/bin/serve", ". env/bin/activate", "",
    "a\nb", "python app.py &"])
def test_all_that_a_shell_reads_goes_through_it(command: str) -> None:
    assert argv_of(command) == ("/bin/sh", "-c", command)


def test_a_list_stays_as_it_is() -> None:
    assert argv_of(("python", "my app.py", "$HOME")) == ("python", "my app.py", "$HOME")
