"""Completion of `brainmri` in bash and zsh: names of commands, bundles and options."""

from __future__ import annotations

from custom.commands.command_line import CommandLine
from custom.commands.options import options_of_command
from custom.errors import ConfigError
from custom.running.bundles import find_bundles

_FUNCTION = r"""# Completion of brainmri: source <(brainmri completion SHELL)
_brainmri() {
    local word="${COMP_WORDS[COMP_CWORD]}" command="" bundle="" names="" index
    for ((index = 1; index < COMP_CWORD; index++)); do
        case "${COMP_WORDS[index]}" in
            -*) ;;
            *) if [ -z "$command" ]; then command="${COMP_WORDS[index]}"; elif [ -z "$bundle" ]; then
                bundle="${COMP_WORDS[index]}"; fi ;;
        esac
    done
    COMPREPLY=()
    if [ -z "$command" ]; then
        names="%(commands)s --help --version --quiet --verbose"
    else
        case "$command" in
%(own)s
        esac
        if [ -z "$bundle" ]; then
            case "$command" in
                %(with_bundle)s) names="$names %(bundles)s" ;;
            esac
        fi
        case "$command:$bundle" in
%(of_bundles)s
        esac
    fi
    if [[ "$word" != -* && -n "$bundle" ]]; then names=""; fi  # a value: files are completed
    COMPREPLY=($(compgen -W "$names" -- "$word"))
}
complete -o default -F _brainmri brainmri
"""


def script(shell: str, line: CommandLine) -> str:
    """The script that the shell reads.

    Args:
        shell: "bash" or "zsh".
        line: the commands.

    Raises:
        ConfigError: another shell.
    """
    if shell not in ("bash", "zsh"):
        raise ConfigError(f"There is no completion for {shell!r}. Use bash or zsh.")
    bundles = sorted(find_bundles())
    own, of_bundles, with_bundle = [], [], []
    for command in line.commands:
        own.append(f'            {command}) names="{_flags(line.names(command))}" ;;')
        if not line.takes_bundle(command):
            continue
        with_bundle.append(command)
        if not line.takes_options_of_bundle(command):
            continue
        for bundle in bundles:
            options = [option.name for option in options_of_command(command, bundle)]
            of_bundles.append(f'            {command}:{bundle}) names="$names {_flags(options)}" ;;')
    texts = {
        "commands": " ".join(line.commands),
        "own": "\n".join(own),
        "with_bundle": "|".join(with_bundle),
        "bundles": " ".join(bundles),
        "of_bundles": "\n".join(of_bundles),
    }
    start = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return start + _FUNCTION % texts


def _flags(names: list[str]) -> str:
    return " ".join(f"--{name}" for name in names)
