"""`hyperbox completion SHELL`: completion scripts, written from the table of verbs."""

from __future__ import annotations

from hyperbox_tui.cli.exits import DONE, UsageError
from hyperbox_tui.cli.verbs import BY_NAME, SHELLS, VERBS, flags_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hyperbox_tui.cli.output import Output
    from hyperbox_tui.cli.parse import Args
    from hyperbox_tui.cli.verbs import Flag, Verb

COMMANDS = ("hyperbox", "hyperbox-tui")


def run(args: Args, out: Output) -> int:
    """Write the script for a shell."""
    shell = args.text("shell")
    if shell is None:
        raise UsageError("completion: say for which shell", hint=f"one of {', '.join(SHELLS)}")
    out.text({"bash": bash, "zsh": zsh, "fish": fish}[shell]())
    return DONE


def _words(verb: Verb) -> list[str]:
    """Every flag of a verb as it is written."""
    return [word for flag in flags_of(verb) for word in (flag.name, flag.short) if word]


def _values(verb: Verb) -> tuple[str, ...]:
    """The fixed words that a verb takes as an argument."""
    return SHELLS if "SHELL" in verb.takes else tuple(BY_NAME) if "VERB" in verb.takes else ()


def bash() -> str:
    """For bash 4 and newer, without the bash-completion package."""
    body = "\n".join(_bash_case(verb) for verb in VERBS)
    return f'''_hyperbox() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}
  local verb=${{COMP_WORDS[1]}} words="" files=""
  COMPREPLY=()
  if [[ $COMP_CWORD -eq 1 ]]; then
    words="{' '.join(BY_NAME)} --help --version"
  else
    case $previous in -C|--project) files=1; verb="" ;; esac
    case $verb in
{body}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ -n $files && $current != -* ]]; then
    COMPREPLY+=($(compgen -d -- "$current"))
  fi
}}
complete -o filenames -F _hyperbox {' '.join(COMMANDS)}
'''


def _bash_case(verb: Verb) -> str:
    words = " ".join((*_words(verb), *_values(verb)))
    lines = [f"    {verb.name})", f'      words="{words}"']
    choices = [f"        {flag.name}) words=\"{' '.join(flag.choices)}\" files=\"\" ;;"
               for flag in verb.flags if flag.choices]
    if "PATH" in verb.takes or "CMD" in verb.takes:
        lines.append("      files=1")
    if choices:
        lines += ["      case $previous in", *choices, "      esac"]
    return "\n".join((*lines, "      ;;"))


def zsh() -> str:
    """For zsh, after compinit."""
    verbs = "\n".join(f"    {_zsh_word(f'{verb.name}:{verb.says}')}" for verb in VERBS)
    cases = "\n".join(_zsh_case(verb) for verb in VERBS)
    return f'''#compdef {' '.join(COMMANDS)}
_hyperbox() {{
  local -a verbs
  verbs=(
{verbs}
  )
  if (( CURRENT == 2 )); then
    _describe 'verb' verbs
    return
  fi
  case $words[2] in
{cases}
  esac
}}
compdef _hyperbox {' '.join(COMMANDS)}
'''


def _zsh_case(verb: Verb) -> str:
    specs = [_zsh_flag(flag) for flag in flags_of(verb)]
    if values := _values(verb):
        specs.append(_zsh_word(f"2:what:({' '.join(values)})"))
    elif "PATH" in verb.takes:
        specs.append("'2:project:_files -/'")
    elif "CMD" in verb.takes:
        specs.append("'*::command:_normal'")
    return f"    {verb.name})\n      _arguments -s {' '.join(specs)} ;;"


def _zsh_flag(flag: Flag) -> str:
    action = ""
    if flag.takes:
        does = f"({' '.join(flag.choices)})" if flag.choices else "_files -/" \
            if flag.takes == "PATH" else " "
        action = f":{flag.takes}:{does}"
    # In a description of _arguments these three end it.
    says = "".join(f"\\{char}" if char in "[]:" else char for char in flag.says)
    names = [name for name in (flag.short, flag.name) if name]
    shut = f"({' '.join(names)})"
    return " ".join(_zsh_word(f"{shut}{name}[{says}]{action}") for name in names)


def _zsh_word(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def fish() -> str:
    """For fish."""
    lines = []
    for command in COMMANDS:
        lines.append(f"complete -c {command} -f")
        lines += [f"complete -c {command} -n __fish_use_subcommand -a {verb.name} "
                  f"-d {_fish_word(verb.says)}" for verb in VERBS]
        for verb in VERBS:
            seen = f"complete -c {command} -n '__fish_seen_subcommand_from {verb.name}'"
            lines += [_fish_flag(seen, flag) for flag in flags_of(verb)]
            if values := _values(verb):
                lines.append(f"{seen} -a {_fish_word(' '.join(values))}")
            elif "PATH" in verb.takes:
                lines.append(f"{seen} -a '(__fish_complete_directories)'")
            elif "CMD" in verb.takes:
                lines.append(f"{seen} -a '(__fish_complete_subcommand)'")
    return "\n".join(lines) + "\n"


def _fish_flag(seen: str, flag: Flag) -> str:
    parts = [seen, f"-l {flag.name.lstrip('-')}"]
    if flag.short:
        parts.append(f"-s {flag.short.lstrip('-')}")
    if flag.choices:
        parts.append(f"-x -a {_fish_word(' '.join(flag.choices))}")
    elif flag.takes == "PATH":
        parts.append("-x -a '(__fish_complete_directories)'")
    elif flag.takes:
        parts.append("-x")
    return " ".join([*parts, f"-d {_fish_word(flag.says)}"])


def _fish_word(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
