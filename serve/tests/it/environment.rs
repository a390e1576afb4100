//! What the environment does to settings, in a process of its own: this test binary once more.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use serve::settings::{ServiceFlags, parse};

/// In the child: the command line to parse, separated by newlines.
const CHILD: &str = "SERVE_TEST_ARGUMENTS";

#[derive(clap::Parser)]
#[command(mut_arg("listen_addresses", |arg| arg.default_value(":9177")))]
struct Flags {
    #[command(flatten)]
    service: ServiceFlags,
}

/// Does nothing but in the child that the tests below start.
#[test]
fn child() {
    let Ok(arguments) = std::env::var(CHILD) else { return };
    let args = std::iter::once("test").chain(arguments.lines()).map(OsString::from);
    match parse::<Flags>(args) {
        Ok(flags) => eprintln!("RESULT {}", flags.service.listen_addresses.join(" ")),
        Err(error) => eprintln!("RESULT {} {error}", error.exit_code()),
    }
}

fn parsed(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "environment::child", "--nocapture"])
        .env(CHILD, arguments.join("\n"))
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, result) = text.split_once("RESULT ").expect("the child printed no result");
    result.lines().next().unwrap_or_default().to_owned()
}

fn file(folder: &Path, yaml: &str) -> String {
    let path = folder.join("settings.yml");
    std::fs::write(&path, yaml).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path(), "web: {listen-address: file}\n");
    let file = ("KANYUN_CONFIG_FILE", file.as_str());
    let variable = ("KANYUN_WEB_LISTEN_ADDRESS", "variable");
    assert_eq!(parsed(&[], &[]), ":9177");
    assert_eq!(parsed(&[], &[file]), "file");
    assert_eq!(parsed(&[], &[file, variable]), "variable");
    assert_eq!(parsed(&["--web.listen-address=flag"], &[file, variable]), "flag");
}

#[test]
fn several_addresses_in_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let file = file(folder.path(), "web.listen-address: [':1', 'a:2']\n");
    let file = ("KANYUN_CONFIG_FILE", file.as_str());
    let variable = ("KANYUN_WEB_LISTEN_ADDRESS", ":3,[::1]:4");
    assert_eq!(parsed(&[], &[file]), ":1 a:2");
    assert_eq!(parsed(&[], &[file, variable]), ":3 [::1]:4");
    let flags = ["--web.listen-address=:5", "--web.listen-address", "b:6"];
    assert_eq!(parsed(&flags, &[file, variable]), ":5 b:6");
}

#[test]
fn a_bad_variable_is_named() {
    let text = parsed(&[], &[("KANYUN_LOG_LEVEL", "loud")]);
    assert!(text.starts_with("2 error: invalid value 'loud' for '--log.level <LEVEL>'"), "{text}");
    assert!(text.contains("(from environment variable KANYUN_LOG_LEVEL)"), "{text}");
}
