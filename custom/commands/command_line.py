"""Reads the words of a command line, and writes the help texts: argparse, and the options of bundles."""

from __future__ import annotations

import argparse
import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from custom.commands.options import NO_VALUE, Word, options_of_command
from custom.errors import ConfigError
from custom.running.bundles import find_bundle, find_bundles

COMMON = {"quiet": "print warnings and errors only", "verbose": "print the messages of MONAI and Ignite too"}
COMMON |= {"help": "print this help"}
Function = Callable[..., object]


@dataclass(frozen=True)
class Call:
    """A command as typed: its function and arguments, and how much it prints."""

    function: Function
    arguments: list[str]
    options: dict[str, Any]
    quiet: bool
    verbose: bool

    def __call__(self) -> object:
        """Runs the command."""
        return self.function(*self.arguments, **self.options)


class Parser(argparse.ArgumentParser):
    """Mistakes end as one sentence on stderr, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Prints the sentence and exits."""
        stop = "" if message.endswith("?") else "."
        print(f"{self.prog}: {message}{stop} {self.prog} --help explains it.", file=sys.stderr)
        sys.exit(2)


class CommandLine:
    """The commands of a program, each one function.

    A parameter without a default is an argument; one with a default is an option, read by its annotation (str, int or
    bool); `**name` takes the options of a bundle, or of what the command starts.

    Args:
        commands: the functions by name; the first line of a docstring is the command's summary.
        meanings: what each parameter means, by "name" or "command.name".
        description: of the program.
        version: what --version prints.
        further: for commands that take options of something else than a bundle: a function that returns their meanings.
    """

    def __init__(
        self,
        commands: Mapping[str, Function],
        meanings: Mapping[str, str],
        description: str,
        version: str,
        further: Mapping[str, Callable[[], Mapping[str, str]]],
    ) -> None:
        self.commands = commands
        self.meanings = meanings
        self.description = description
        self.version = version
        self.further = further

    def read(self, words: Sequence[str]) -> Call:
        """The call that the words ask for. Prints help or the version and exits, if they ask for that."""
        name = next((word for word in words if not word.startswith("-")), None)
        if name is None:
            self._without_command([word for word in words if word.startswith("-")])
        if name not in self.commands:
            near = difflib.get_close_matches(name, self.commands, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            self._program().error(f"There is no command {name!r}{hint} Use one of: {', '.join(self.commands)}")
        index = list(words).index(name)
        return self._read_command(name, [*words[:index], *words[index + 1 :]])

    def _without_command(self, options: list[str]) -> NoReturn:
        if "--version" in options:
            print(self.version)
        elif {"-h", "--help"} & set(options):
            self._program().print_help()
        else:
            self._program().error(f"name a command, one of: {', '.join(self.commands)}")
        sys.exit(0)

    def _read_command(self, name: str, words: list[str]) -> Call:
        places, given = split_words(words, self._switches(name))
        if "help" in given:
            self._help_of(name, places, given.get("bundle")).print_help()
            sys.exit(0)
        parser = self.parser_of(name)
        if "" in [*places, *given.values()]:  # as a path it would be the current folder
            parser.error("an argument or option is empty, as from a variable of the shell that is not set")
        own = [*COMMON, *(parameter.name for parameter in self._parameters(name) if _is_option(parameter))]
        others = {key: value for key, value in given.items() if key not in own}
        if others and not self._takes_others(name):
            unknown = next(iter(others))
            near = difflib.get_close_matches(unknown, own, n=1)
            parser.error(f"There is no option --{unknown}" + (f"; did you mean --{near[0]}?" if near else ""))
        flags = [
            f"--{key}" if value is NO_VALUE or key in COMMON else f"--{key}={value}"
            for key, value in given.items()
            if key in own and not (key in COMMON and value.lower() == "false")
        ]
        options = vars(parser.parse_args([*flags, "--", *places] if places else flags))
        quiet, verbose = options.pop("quiet"), options.pop("verbose")
        if quiet and verbose:
            parser.error("--quiet and --verbose exclude each other")
        arguments: list[str] = []
        for parameter in self._parameters(name):
            if parameter.kind is parameter.VAR_POSITIONAL:
                arguments += options.pop(parameter.name)
            elif _is_argument(parameter):
                arguments.append(options.pop(parameter.name))
        return Call(self.commands[name], arguments, options | others, quiet, verbose)

    def parser_of(self, name: str) -> Parser:
        """The parser of one command, without the options of a bundle."""
        summary, _, more = (inspect.getdoc(self.commands[name]) or "").partition("\n")
        places = [parameter for parameter in self._parameters(name) if not _is_option(parameter)]
        usage = " ".join([f"brainmri {name}", *(_as_usage(place) for place in places if not _is_rest(place))])
        parser = Parser(f"brainmri {name}", description=summary, epilog=more.strip() or None, add_help=False)
        parser.usage = f"{usage} [OPTIONS]"
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        for parameter in self._parameters(name):
            if parameter.kind is not parameter.VAR_KEYWORD:
                meaning = self.meanings.get(f"{name}.{parameter.name}") or self.meanings[parameter.name]
                _add(parser, parameter, _escaped(meaning))
        for switch, meaning in COMMON.items():
            action = "help" if switch == "help" else "store_true"
            parser.add_argument(f"-{switch[0]}", f"--{switch}", action=action, help=meaning)
        return parser

    def _help_of(self, name: str, places: list[str], bundle: str | None) -> Parser:
        """The parser of one command, with the options of a bundle or of what the command starts."""
        parser = self.parser_of(name)
        if name in self.further:
            _add_texts(parser, "further options", self.further[name]())
        elif self._takes_others(name):
            parameter = inspect.signature(self.commands[name]).parameters["bundle"]
            given = " ".join(places[:1]) if _is_argument(parameter) else parameter.default
            try:
                folder = find_bundle(bundle or given)
            except ConfigError:
                lines = [f"Options of a bundle: brainmri {name} BUNDLE --help. Bundles, by any unique part of a name:"]
                parser.epilog = "\n".join([*lines, *(f"  {other}" for other in sorted(find_bundles()))])
                return parser
            own = {option.name for option in self._parameters(name)}
            options = [option for option in options_of_command(name, str(folder)) if option.name not in own]
            texts = {option.name: f"{option.meaning} (default: {option.default})" for option in options}
            _add_texts(parser, f"options of {folder.name}", texts)
            for kind in ("networks", "recipes"):
                names = ", ".join(sorted(path.stem for path in (folder / "configs" / kind).glob("*.json")))
                if names:
                    parser.add_argument_group(f"{kind} of {folder.name}", names)
        return parser

    def names(self, command: str) -> list[str]:
        """The names of a command's own options, for completion."""
        own = [parameter.name for parameter in self._parameters(command) if _is_option(parameter)]
        return [*own, *COMMON, *(self.further[command]() if command in self.further else ())]

    def takes_bundle(self, command: str) -> bool:
        """Whether the command's first argument is a bundle."""
        return [parameter.name for parameter in self._parameters(command)][:1] == ["bundle"]

    def takes_options_of_bundle(self, command: str) -> bool:
        """Whether the command takes the options of the bundle that its first argument names."""
        return self.takes_bundle(command) and self._takes_others(command)

    def _program(self) -> Parser:
        parser = Parser("brainmri", description=self.description, add_help=False, usage="brainmri COMMAND [OPTIONS]")
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        commands = parser.add_argument_group("commands")
        for name, function in self.commands.items():
            commands.add_argument(name, help=_escaped((inspect.getdoc(function) or "").partition("\n")[0]))
        switches = parser.add_argument_group("options")
        for switch, meaning in (COMMON | {"version": "print the version"}).items():
            switches.add_argument(f"--{switch}", action="store_true", help=meaning)
        parser.epilog = "brainmri COMMAND --help lists the options of a command."
        return parser

    def _parameters(self, command: str) -> list[inspect.Parameter]:
        return list(inspect.signature(self.commands[command]).parameters.values())

    def _takes_others(self, command: str) -> bool:
        return any(_is_rest(parameter) for parameter in self._parameters(command))

    def _switches(self, command: str) -> set[str]:
        switches = {parameter.name for parameter in self._parameters(command) if parameter.annotation == "bool"}
        return switches | {*COMMON, *(switch[0] for switch in COMMON)}


def split_words(words: Iterable[str], switches: set[str]) -> tuple[list[str], dict[str, Word]]:
    """Arguments and options, as typed.

    An option takes the next word as its value, unless that starts with "--". A switch takes it only if it is True or
    False. All words after "--" are arguments. If an option is given twice, the last value counts.

    Args:
        words: what follows the command's name.
        switches: options that are True or False.
    """
    waiting, arguments, options = list(words), list[str](), dict[str, Word]()
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            arguments += waiting
            break
        if word in ("-h", "-q", "-v"):
            options[next(name for name in COMMON if name[0] == word[1])] = NO_VALUE
        elif not word.startswith("--"):
            arguments.append(word)
        else:
            name, equals, value = word.removeprefix("--").partition("=")
            name = name.replace("-", "_")
            follows = bool(waiting) and not waiting[0].startswith("--")
            if equals:
                options[name] = Word(value)
            elif follows and (name not in switches or waiting[0].lower() in ("true", "false")):
                options[name] = Word(waiting.pop(0))
            else:
                options[name] = NO_VALUE
    return arguments, options


def _is_rest(parameter: inspect.Parameter) -> bool:
    return parameter.kind is parameter.VAR_KEYWORD


def _is_argument(parameter: inspect.Parameter) -> bool:
    """Whether a parameter is given by its place; one that may be left out is marked by "/" in the signature."""
    if parameter.kind is parameter.POSITIONAL_ONLY:
        return True
    return parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.default is parameter.empty


def _as_usage(parameter: inspect.Parameter) -> str:
    name = parameter.name.upper()
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"{name}..."
    return name if parameter.default is parameter.empty else f"[{name}]"


def _is_option(parameter: inspect.Parameter) -> bool:
    return not _is_argument(parameter) and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)


def _add(parser: Parser, parameter: inspect.Parameter, meaning: str) -> None:
    name, default = parameter.name, parameter.default
    required = default is parameter.empty
    shown = meaning if required or default in (None, "") else f"{meaning} (default: {default})"
    if parameter.kind is parameter.VAR_POSITIONAL:
        parser.add_argument(name, nargs="*", help=meaning)
    elif _is_argument(parameter):
        parser.add_argument(name, help=shown, **({} if required else {"nargs": "?", "default": default}))
    elif parameter.annotation == "bool":
        parser.add_argument(
            f"--{name}", nargs="?", const=True, default=default, type=_bool, metavar="True|False", help=shown
        )
    elif str(parameter.annotation).startswith("int"):
        parser.add_argument(
            f"--{name}", required=required, default=default, type=_whole_number, metavar="N", help=shown
        )
    else:
        parser.add_argument(f"--{name}", required=required, default=default, metavar=name.upper(), help=shown)


def _add_texts(parser: Parser, title: str, texts: Mapping[str, str]) -> None:
    group = parser.add_argument_group(title)
    for name, text in texts.items():
        group.add_argument(f"--{name}", metavar="VALUE", help=_escaped(text), default=argparse.SUPPRESS)


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"it must be True or False, got {text!r}")
    return text.lower() == "true"


def _whole_number(text: str) -> int:
    if text.lstrip("-").isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"it must be a whole number, got {text!r}")


def _escaped(text: str) -> str:
    return text.replace("%", "%%")
