//! Tests of the configuration: its default, and the line of every mistake.

use std::path::Path;
use std::time::Duration;

use super::*;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("c.toml")).map_err(|error| error.to_string())
}

fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => setting.to_owned(),
        _ => line.to_owned(),
    };
    DEFAULT.lines().map(|text| line(text) + "\n").collect()
}

#[test]
fn the_example_is_the_default() {
    assert_eq!(parse(DEFAULT), Ok(Config::default()));
    assert_eq!(parse(""), Ok(Config::default()));
}

#[test]
fn every_commented_setting_of_the_example_is_real() {
    // Both ways of giving the password cannot be used at once, nor a CA without TLS.
    let text = uncommented()
        .replace("password_credential = ", "# ")
        .replacen("redis://", "rediss://", 1);
    let text = text.replace("# rediss://HOST", "# redis://HOST").replacen(
        "url = \"redis://127.0.0.1:6379\"",
        "url = \"rediss://127.0.0.1:6379\"",
        1,
    );
    let config = parse(&text).expect("the uncommented example");
    assert_eq!(
        config.unit[0].actions,
        [Rung::ClientKill, Rung::Restart, Rung::Exec]
    );
    assert_eq!(
        config.unit[0].own_levels().expect("own levels").critical,
        50
    );
    assert_eq!(config.probe.0.len(), 4);
    assert_eq!(config.redis.sentinels.len(), 2);
}

#[test]
fn mistakes_are_named_with_file_and_line() {
    for (text, expected) in [
        (
            "[[site]]\nsubject = \"file\"\npattern = \"**\"\n",
            "c.toml:3: the pattern matches every frame: write a part of the name, such as \
             \"*/redis_pool.py\"",
        ),
        (
            "[[site]]\nsubject = \"flie\"\npattern = \"x\"\n",
            "c.toml:2: unknown value `flie`, expected one of `function`, `file`, `module`",
        ),
        (
            "[[watch]]\nprot = 1\n",
            "c.toml:2: unknown key `prot`; did you mean `port`?",
        ),
        (
            "\n[polcy]\n",
            "c.toml:2: unknown key `polcy`; did you mean `policy`?",
        ),
        (
            "[[watch]]\nport = 70000\n",
            "c.toml:2: port 70000 is out of range: 1 to 65535",
        ),
        (
            "[[watch]]\n\nport = 0\n",
            "c.toml:3: port 0 is out of range: 1 to 65535",
        ),
        (
            "[[watch]]\nport = 6379\nleak = 200\n",
            "c.toml:1: thresholds must rise: leak = 200 is not below critical = 100",
        ),
        (
            "[[watch]]\ncritical = 40\nport = 6379\n",
            "c.toml:2: thresholds must rise: leak = 50 is not below critical = 40",
        ),
        (
            "[policy]\ncooldown = \"5\"\n",
            "c.toml:2: \"5\" is no duration; write it like \"10s\", \"250ms\" or \"1h30m\"",
        ),
        (
            "[policy]\ncooldown = 5\n",
            "c.toml:2: invalid type: integer `5`, expected a duration with its unit, like \"10s\"",
        ),
        (
            "[[unit]]\nname = \"orders\"\n",
            "c.toml:2: bad unit name \"orders\": it has no type; \"orders.service\"?",
        ),
        (
            "[[unit]]\nname = \"a b.service\"\n",
            "c.toml:2: bad unit name \"a b.service\": ' ' is not allowed in it",
        ),
        (
            "[[unit]]\nname = \"a.service\"\n[[unit]]\nname = \"a.service\"\n",
            "c.toml:4: unit \"a.service\" is there twice",
        ),
        (
            "[[unit]]\nname = \"a.service\"\nactions = [\"exec\"]\n",
            "c.toml:3: \"exec\" needs a command: exec = [\"/path/to/command\"]",
        ),
        (
            "[redis]\nurl = \"redis://:secret@host\"\n",
            "c.toml:2: no user or password in the url; use username and password_file",
        ),
        (
            "[limits]\nbackground_cpu_percent = 0\n",
            "c.toml:2: background_cpu_percent = 0 is not between 1 and 100",
        ),
        (
            "[limits]\nring_bytes = \"5MiB\"\n",
            "c.toml:2: ring_bytes = 5242880 is no power of two of at least 4KiB",
        ),
        (
            "[export.prometheus]\nlisten = \"0.0.0.0:9469\"\n",
            "c.toml:2: listen = 0.0.0.0:9469 is not loopback: anyone who reaches it can read; say \
             public = true if that is meant",
        ),
        (
            "[[probe]]\nname = \"x\"\ninterval = \"1s\"\ncommand = [\n \"GET\", \"{now+1s}\"]\n",
            "c.toml:4: \"{now+1s}\": write {now} or {now-5s}",
        ),
    ] {
        assert_eq!(parse(text).expect_err(text), expected);
    }
}

#[test]
fn a_syntax_error_has_its_line() {
    let error = parse("[policy]\ncooldown = \n").expect_err("no value");
    assert!(error.starts_with("c.toml:2: "), "{error}");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let error = parse("[[watch]]\nleak = 20\n[[unit]]\nname = \"x\"\n").expect_err("two mistakes");
    assert_eq!(error.lines().count(), 2, "{error}");
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    let error = Config::read(Path::new("/nonexistent/c.toml")).expect_err("no such file");
    assert!(
        error
            .to_string()
            .starts_with("failed to read configuration /nonexistent/c.toml")
    );
}

#[test]
fn a_unit_without_levels_of_its_own_has_none() {
    let config = parse("[[unit]]\nname = \"a.service\"\n").expect("valid");
    assert_eq!(config.unit[0].actions, [Rung::Restart]);
    assert_eq!(config.unit[0].own_levels(), None);
    let config = parse("[[unit]]\nname = \"a.service\"\ncritical = 60\n").expect("valid");
    let levels = config.unit[0].own_levels().expect("levels");
    assert_eq!((levels.leak, levels.critical), (50, 60));
    assert_eq!(levels.expected_min, 0);
    assert_eq!(levels.hold_up, Duration::from_secs(10));
}
