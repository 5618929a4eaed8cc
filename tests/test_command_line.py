"""Words of a command line: values, help texts, completion, and the tables of docs/bundles.md."""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from custom import cli
from custom.commands.command_line import split_words
from custom.commands.completion import script
from custom.commands.options import CONFIGS, NO_VALUE, Word, bundle_options, convert, read_meanings, typed
from custom.errors import ConfigError
from custom.running.bundles import config_files, find_bundle, find_bundles
from custom.running.workflow import StrictWorkflow, _as_text

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(find_bundles())
COMMANDS = list(cli.COMMANDS.commands)
ODD_NAMES = [
    "2024_01", "1.10", "1e3", "007", "0x10", "True", "None", "[a]", "(1,2)", "{a}", "study#2", "a,b", "'x'", "a b",
    "a::b", "-5", "50%", "x@y", "1_000.nii.gz",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD_NAMES)
def test_paths_and_names_stay_text(name: str) -> None:
    files = config_files("brain_mri_tissue", "train.json")
    options = ("dataset_dir", "output_dir", "freesurfer_dir", "from_weights", "device", "split")
    values = typed(files, {option: Word(name) for option in options})
    assert values == dict.fromkeys(options, name)
    assert all(type(value) is str for value in values.values())
    values.pop("device")
    workflow = StrictWorkflow(files, logging_file=False, **values)
    for option in values:
        assert workflow.parser.get_parsed_content(option) == name


@pytest.mark.parametrize("name", ODD_NAMES)
def test_commands_get_names_as_typed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for command in ("verify", "prepare", "segment", "train"):
        monkeypatch.setitem(cli.COMMANDS.commands, command, recorder(command, seen))
    cli.COMMANDS.read(["verify", "msd", "--", name])()
    cli.COMMANDS.read(["prepare", "msd", f"--output_dir={name}", "--", name])()
    cli.COMMANDS.read(["segment", "--output_dir", name, "--from_mask", name, "--", name, "b.nii"])()
    cli.COMMANDS.read(["train", "iseg", "--recipe", name, "--network", name, "--dataset_dir", name])()
    assert seen[0] == (("msd", name), {})
    assert seen[1] == (("msd", name), {"output_dir": name})
    assert seen[2][0] == (name, "b.nii")
    assert seen[2][1]["output_dir"] == seen[2][1]["from_mask"] == name
    assert seen[3] == (("iseg",), {"recipe": name, "network": name, "folds": "", "dataset_dir": name})


def recorder(command: str, seen: list) -> object:
    def record(*args: object, **options: object) -> None:
        seen.append((args, options))

    record.__signature__ = inspect.signature(cli.COMMANDS.commands[command])
    return record


@pytest.mark.parametrize("name", ODD_NAMES)
def test_fire_reads_a_printed_name_as_it_was(name: str) -> None:
    from fire.parser import DefaultParseValue

    assert DefaultParseValue(_as_text(name)) == name


def test_lists_and_nested_text_keep_the_number_sign() -> None:
    data = [{"image": ["a#1.nii", "b#2.nii"]}]
    workflow = StrictWorkflow(config_files("iseg", "inference.json"), logging_file=False, data=data)
    assert workflow.parser.get_parsed_content("data") == data


@pytest.mark.parametrize(
    ("bundle", "option", "text", "value"),
    [
        ("iseg", "max_epochs", "5", 5),
        ("iseg", "max_epochs", "$2 + 1", "$2 + 1"),
        ("iseg", "max_epochs", "two", "two"),  # StrictWorkflow refuses it
        ("iseg", "num_workers", "2", 2),
        ("iseg", "num_workers", "1.5", 1.5),  # StrictWorkflow refuses it
        ("iseg", "learning_rate", "1e-3", 0.001),
        ("iseg", "resume", "true", True),
        ("iseg", "resume", "FALSE", False),
        ("iseg", "resume", "0", "0"),
        ("iseg", "roi_size", "[64,64,64]", [64, 64, 64]),
        ("iseg", "roi_size", "64,64,64", [64, 64, 64]),
        ("iseg", "roi_size", "64", 64),
        ("iseg", "network_def#strides", "[1, 2]", [1, 2]),
        ("iseg", "network_def#norm", "007", "007"),
        ("iseg", "codes", "[0, 1, 2, 3]", [0, 1, 2, 3]),
        ("iseg", "normalize", '{"_target_": "Identityd", "keys": "image", "allow_missing_keys": true}',
         {"_target_": "Identityd", "keys": "image", "allow_missing_keys": True}),
        ("iseg", "dataset_dir", "@data", str(Path.cwd() / "@data")),
        ("iseg", "dataset_dir", "$HOME", str(Path.cwd() / "$HOME")),
        ("brats_mri_slice", "middle_slices", "77", 77),
        ("brats_mri_slice", "middle_slices", "None", "$None"),
        ("brats_mri_tumor", "background_channel", "None", "$None"),
        ("brats_mri_slice", "channel_order", "T1,T2,FLAIR,T1ce", ["T1", "T2", "FLAIR", "T1ce"]),
        ("brats_mri_slice", "channel_order", "[1,2]", ["1", "2"]),
        ("brats_mri_slice", "channel_order", "['T1','T2']", ["T1", "T2"]),
        ("hcp", "scale", "[10, 2.5]", [10, 2.5]),
        ("hcp", "target", "2024", "2024"),
        ("hcp", "covariates", "[Age_in_Yrs,Gender]", ["Age_in_Yrs", "Gender"]),
        ("brain_mri_tissue", "labels", "{0: 'background', 1: 'tumor'}", {0: "background", 1: "tumor"}),
        ("brain_mri_tissue", "from_weights", "shipped", "shipped"),
    ],
)  # fmt: skip
def test_values_are_read_by_their_default(bundle: str, option: str, text: str, value: object) -> None:
    converted = typed(config_files(bundle, "train.json"), {option: Word(text)})[option]
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("bundle", "option", "files"),
    [
        ("brats_mri_slice", "middle_slices", ("train.json",)),
        ("brats_mri_tumor", "background_channel", ("train.json",)),
        ("brats_mri_tumor", "background_channel", ("inference.json", "recipes/regions.json")),
    ],
)
def test_none_where_it_means_something(bundle: str, option: str, files: tuple[str, ...]) -> None:
    configs = config_files(bundle, *files)
    run_id = "inferring" if "inference.json" in files else "training"
    workflow = StrictWorkflow(configs, run_id=run_id, logging_file=False, **typed(configs, {option: Word("None")}))
    assert workflow.parser.get_parsed_content(option) is None


@pytest.mark.parametrize(
    ("config", "option", "sentence"),
    [
        ("train", "network_def", r"network_def must be a dict, as its default \{'_target_': 'UNet', .*\} is; got 3\."),
        ("train", "normalize", r"normalize must be a dict, as its default .* is; got 3\."),
        ("train", "train", r"train is a part of the config and no option\. Use a mixin of the bundle to replace it\."),
        ("train", "network", r"network is a part of the config and no option\. Use a mixin of the bundle to replace"),
        ("train", "handlers", r"There is no option 'handlers'"),
        ("inference", "handlers", r"handlers is a part of the config and no option\. Use a mixin of the bundle"),
        ("inference", "evaluator", r"evaluator is a part of the config and no option\. Use a mixin of the bundle"),
    ],
)
def test_sections_are_no_options(config: str, option: str, sentence: str) -> None:
    files = config_files("iseg", f"{config}.json")
    text = Word("3" if option in ("network_def", "normalize") else "x")
    with pytest.raises(ConfigError, match=sentence):
        StrictWorkflow(files, logging_file=False, **typed(files, {option: text}))


def test_values_of_python_callers_stay() -> None:
    assert typed(config_files("iseg", "train.json"), {"max_epochs": "5", "x": 1}) == {"max_epochs": "5", "x": 1}


def test_an_option_without_a_value() -> None:
    files = config_files("iseg", "train.json")
    assert typed(files, {"resume": NO_VALUE}) == {"resume": True}
    with pytest.raises(ConfigError, match=r"--dataset_dir needs a value"):
        typed(files, {"dataset_dir": NO_VALUE})
    assert convert("True", bool) is True


@pytest.mark.parametrize(
    ("words", "arguments", "options"),
    [
        (["a", "--x", "1", "b"], ["a", "b"], {"x": "1"}),
        (["--x=1=2", "a"], ["a"], {"x": "1=2"}),
        (["--x-y", "-1"], [], {"x_y": "-1"}),
        (["--joint", "a"], ["a"], {"joint": NO_VALUE}),
        (["--joint", "false", "a"], ["a"], {"joint": "false"}),
        (["--x", "--y", "1"], [], {"x": NO_VALUE, "y": "1"}),
        (["--x", "1", "--x", "2"], [], {"x": "2"}),
        (["--", "--x", "1"], ["--x", "1"], {}),
        (["-q", "a", "-v"], ["a"], {"quiet": NO_VALUE, "verbose": NO_VALUE}),
    ],
)
def test_split_words(words: list[str], arguments: list[str], options: dict) -> None:
    assert split_words(words, {"joint", "quiet"}) == (arguments, options)


def printed(words: list[str], capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert not stopped.value.code
    return " ".join(capsys.readouterr().out.split())


def test_help_lists_every_command(capsys: pytest.CaptureFixture) -> None:
    text = printed(["--help"], capsys)
    for command in COMMANDS:
        summary = (inspect.getdoc(cli.COMMANDS.commands[command]) or "").splitlines()[0]
        assert summary.endswith(".")
        assert f"{command} {summary}" in text
    assert printed(["--version"], capsys) == f"brainmri {cli.custom.__version__}"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(command: str, capsys: pytest.CaptureFixture) -> None:
    text = printed([command, "--help"], capsys)
    assert "--help" in text
    for name in cli.COMMANDS.names(command):
        assert re.search(rf"--{name}( [A-Z\[]\S*)? [a-z0-9][^-]{{4}}", text, re.IGNORECASE), name
    for parameter in inspect.signature(cli.COMMANDS.commands[command]).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            meaning = cli.OPTIONS.get(f"{command}.{parameter.name}") or cli.OPTIONS[parameter.name]
            assert meaning in text


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("command", ["train", "evaluate", "infer", "export", "compare"])
def test_help_of_a_bundle(command: str, bundle: str, capsys: pytest.CaptureFixture) -> None:
    text = printed([command, bundle, "--help"], capsys)
    configs = {"infer": ["inference"], "export": ["inference"], "evaluate": ["train", "evaluate"]}
    options = bundle_options(find_bundle(bundle), *configs.get(command, ["train"]))
    assert len(options) > 8
    for option in options:
        if option.name not in ("output_dir",):  # of export and compare themselves
            assert f"--{option.name} VALUE {option.meaning} (default: {option.default})" in text


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["trian"], 2, "brainmri: There is no command 'trian'; did you mean 'train'?"),
        ([], 2, "brainmri: name a command, one of: quickstart, segment, plan, train"),
        (["sample", "iseg"], 2, "brainmri sample: the following arguments are required: folder"),
        (["export", "iseg", "x"], 2, "brainmri export: unrecognized arguments: x"),
        (
            ["verify", "iseg", "x", "--verbos"],
            2,
            "brainmri verify: There is no option --verbos; did you mean --verbose? brainmri",
        ),
        (["segment", ""], 2, "brainmri segment: an argument or option is empty, as from a variable of the shell"),
        (["segment", "x.nii", "--output_dir", ""], 2, "brainmri segment: an argument or option is empty"),
        (["train", "iseg", "--dataset_dir="], 2, "brainmri train: an argument or option is empty"),
        (["networks", "--size", "x"], 2, "brainmri networks: argument --size: it must be a whole number, got 'x'"),
        (["compare", "iseg", "--summary=x"], 2, "argument --summary: it must be True or False, got 'x'"),
        (["verify", "iseg", "x", "-q", "-v"], 2, "brainmri verify: --quiet and --verbose exclude each other"),
    ],
)
def test_a_wrong_call(words: list[str], code: int, sentence: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_help_imports_no_torch() -> None:
    call = "import sys; from custom import cli\ntry: cli.main()\nexcept SystemExit: print('torch' in sys.modules)"
    for words in (["--help"], ["train", "iseg", "--help"], ["completion", "bash"]):
        result = subprocess.run(
            [sys.executable, "-c", call, *words], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
        )
        assert result.stdout.splitlines()[-1] != "True"


@pytest.mark.parametrize(
    ("typed_words", "expected"),
    [
        (["tr"], {"train"}),
        (["train", "is"], {"iseg_mri_tissue_segmentation"}),
        (["train", "iseg_mri_tissue_segmentation", "--max"], {"--max_epochs"}),
        (["infer", "iseg_mri_tissue_segmentation", "--sub"], {"--submission"}),
        (["segment", "--out"], {"--output_dir", "--outputs"}),
        (["train", "iseg_mri_tissue_segmentation", "--ver"], {"--verbose"}),
        (["label", "--po"], {"--port"}),
    ],
)
def test_completion_in_bash(typed_words: list[str], expected: set[str]) -> None:
    bash = shutil.which("bash")
    assert bash
    words = " ".join(["brainmri", *typed_words])
    call = f"COMP_WORDS=({words}); COMP_CWORD={len(typed_words)}; _brainmri; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    text = f"{script('bash', cli.COMMANDS)}\n{call}"
    result = subprocess.run([bash, "-c", text], capture_output=True, encoding="utf-8", check=True)
    assert set(result.stdout.split()) == expected


def test_completion_in_zsh() -> None:
    text = script("zsh", cli.COMMANDS)
    assert text.startswith("autoload -U +X bashcompinit && bashcompinit")
    if zsh := shutil.which("zsh"):
        call = f"autoload -U compinit && compinit -u -D\n{text}\nwhich _brainmri > /dev/null"
        subprocess.run([zsh, "-c", call], check=True, capture_output=True)
    with pytest.raises(ConfigError, match=r"no completion for 'fish'. Use bash or zsh"):
        script("fish", cli.COMMANDS)


def tables_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle_options", ROOT / "scripts" / "bundle_options.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_bundles_has_the_tables() -> None:
    """After a change of options: python scripts/bundle_options.py."""
    page = (ROOT / "docs" / "bundles.md").read_text(encoding="utf-8")
    assert tables_script().with_tables(page) == page
    for bundle in BUNDLES:
        assert f"<!-- options {bundle} -->" in page


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_option_has_a_meaning(bundle: str) -> None:
    """Options: top-level keys whose default is a constant. Expressions with a meaning also have a default to show."""
    meanings, known = read_meanings(find_bundle(bundle)), {}
    names = [name for name in CONFIGS if (find_bundle(bundle) / "configs" / f"{name}.json").is_file()]
    assert names[:3] == ["train", "evaluate", "inference"]
    for config in names:
        content = json.loads(Path(config_files(bundle, f"{config}.json")[0]).read_text(encoding="utf-8"))
        known |= content
        for name, default in content.items():
            if not name.startswith("_") and "#" not in name and is_constant(default):
                assert meanings[name]["meaning"], name
    assert len(meanings) > 8
    for name, about in meanings.items():
        assert set(about) <= {"meaning", "default", "kind", "none"}
        assert about["meaning"][-1] != "."
        assert "default" in about or is_constant(known[name]), name


def is_constant(value: object) -> bool:
    if isinstance(value, list):
        return all(is_constant(item) for item in value)
    return not isinstance(value, dict) and not (isinstance(value, str) and value[:1] in ("$", "@", "%"))
