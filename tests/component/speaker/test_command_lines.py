"""The daemons' command lines: exit statuses, and what is said where."""

import pytest

DAEMONS = ["kedge-lm", "kedge-speaker"]
pytestmark = pytest.mark.parametrize("daemon", DAEMONS)


def test_help_names_every_option_and_the_exit_codes(run, daemon):
    result = run(daemon, "--help")
    assert result.returncode == 0
    assert result.stderr == ""
    options = ["--config", "--check", "--doctor", "--version"] + (["--purge"] if daemon == "kedge-speaker" else [])
    for part in (*options, "Exit codes: 0 ", ", 1 ", ", 2 "):
        assert part in result.stdout


def test_the_version_is_all_that_is_printed(run, daemon):
    result = run(daemon, "--version")
    assert result.returncode == 0
    assert len(result.stdout.split()) == 1 and result.stdout[0].isdigit()


@pytest.mark.parametrize("arguments", [[], ["--check"], ["--config"], ["--config", "{good}", "--chekc"], ["--config", "{good}", "word"]])
def test_wrong_usage_is_told_on_standard_error(run, good, tmp_path, daemon, arguments):
    file = tmp_path / "good.yaml"
    file.write_text(good[daemon], encoding="utf-8")
    result = run(daemon, *[word.format(good=file) for word in arguments])
    assert result.returncode == 2
    assert result.stdout == ""
    assert "--help" in result.stderr


@pytest.mark.parametrize("path, why", [("/nonexistent/file.yaml", "No such file"), ("/", "Is a directory")])
def test_a_configuration_that_cannot_be_read_is_named(run, daemon, path, why):
    result = run(daemon, "--config", path)
    assert result.returncode == 2
    assert path in result.stderr and why in result.stderr


def test_check_of_a_good_configuration_says_so_and_starts_nothing(check, good, daemon):
    file, result = check(daemon, good[daemon])
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{file}: ok\n", "")
