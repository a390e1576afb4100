//! Precedence, origins and keys. The environment belongs to the whole process and is not set
//! here: what it does is tested on a child process in tests/it.

#![expect(clippy::needless_raw_string_hashes, reason = "expect-test writes them")]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser;
use expect_test::{Expect, expect};

use super::{ServiceFlags, given, parse, variable};

/// A service for the tests.
#[derive(Debug, Parser)]
#[command(name = "kanyun-test", version = "1.2.3 (revision abc)")]
#[command(mut_arg("listen_addresses", |arg| arg.default_value(":9177")))]
struct Flags {
    #[command(flatten)]
    service: ServiceFlags,

    /// Where the store lives
    #[arg(long = "store.path", value_name = "FOLDER", help_heading = "Store")]
    store_path: PathBuf,

    /// Guests at once
    #[arg(long = "guests.max", default_value_t = 7, help_heading = "Store")]
    guests_max: u32,

    /// Node to talk to; may be repeated
    #[arg(long = "cassandra.nodes", help_heading = "Store")]
    nodes: Vec<String>,

    /// Fsync
    #[arg(long = "store.sync", help_heading = "Store")]
    sync: bool,
}

fn with_file(yaml: &str, args: &[&str]) -> Result<Flags, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settings.yml");
    std::fs::write(&path, yaml).unwrap();
    let mut all: Vec<OsString> = vec!["kanyun-test".into(), "--config.file".into()];
    all.push(path.clone().into());
    all.extend(args.iter().map(OsString::from));
    parse(all).map_err(|error| {
        assert_eq!(error.exit_code(), 2);
        error.to_string().replace(path.to_str().unwrap(), "FILE")
    })
}

fn check_error(yaml: &str, args: &[&str], expected: &Expect) {
    let error = with_file(yaml, args).unwrap_err();
    expected.assert_eq(&error);
}

/// A service with words for other things than serving.
#[derive(Debug, Parser)]
#[command(name = "kanyun-test")]
struct WithWords {
    /// Where the store lives
    #[arg(long = "store.path", default_value = "data")]
    store_path: PathBuf,

    #[command(subcommand)]
    word: Option<Word>,
}

#[derive(Debug, clap::Subcommand)]
enum Word {
    /// Asks
    Status {
        /// Whom
        #[arg(long)]
        url: Option<String>,
    },
    /// Asks for more
    Ledger {
        /// Whom
        #[arg(long)]
        url: Option<String>,
        /// Of whom
        #[arg(long)]
        guest: Option<String>,
    },
}

#[test]
fn a_flag_on_the_wrong_side_of_a_word_is_told_its_place() {
    let first_line = |args: &[&str]| {
        let args = std::iter::once("kanyun-test").chain(args.iter().copied());
        let error = parse::<WithWords>(args.map(OsString::from)).unwrap_err().to_string();
        error.lines().next().unwrap().to_owned()
    };
    let unexpected = |flag: &str| format!("error: unexpected argument '--{flag}' found");
    for (args, flag, place) in [
        (&["status", "--store.path=x"][..], "store.path", ": it goes before the word status"),
        (&["status", "--store.path", "x"], "store.path", ": it goes before the word status"),
        (&["--url=x", "status"], "url", ": it goes behind the word status"),
        (&["--url=x"], "url", ": it goes behind the word status or ledger"),
        (&["--guest", "x", "ledger"], "guest", ": it goes behind the word ledger"),
        // It goes nowhere here.
        (&["status", "--guest=x"], "guest", ""),
        (&["--nonsense", "status"], "nonsense", ""),
        (&["status", "--nonsense"], "nonsense", ""),
    ] {
        assert_eq!(first_line(args), unexpected(flag) + place, "{args:?}");
    }
}

#[test]
fn a_variable_is_the_flag_in_upper_case() {
    assert_eq!(variable("web.listen-address"), "KANYUN_WEB_LISTEN_ADDRESS");
}

#[test]
fn the_last_flag_before_the_double_dash_counts() {
    let args = ["x", "--a", "1", "--a=2", "--", "--a=3"].map(OsString::from);
    assert_eq!(given(&args, "a"), Some("2".into()));
    assert_eq!(given(&args, "b"), None);
}

#[test]
fn flat_and_nested_keys_and_the_flag_above_them() {
    let yaml = "
web.listen-address: 127.0.0.1:1
store: {path: /data, sync: true}
cassandra: {nodes: [a, b]}
guests.max: 9
";
    let flags = with_file(yaml, &[]).unwrap();
    assert_eq!(flags.service.listen_addresses, ["127.0.0.1:1"]);
    assert_eq!(flags.store_path, PathBuf::from("/data"));
    assert_eq!(flags.nodes, ["a", "b"]);
    assert_eq!(flags.guests_max, 9);
    assert!(flags.sync);

    let flags = with_file(yaml, &["--guests.max=3", "--cassandra.nodes=c"]).unwrap();
    assert_eq!(flags.guests_max, 3);
    assert_eq!(flags.nodes, ["c"]);
}

#[test]
fn defaults_hold_where_nobody_says_anything() {
    for yaml in ["", "# nothing\n", "store.path: x\n"] {
        let flags = with_file(yaml, &["--store.path=y"]).unwrap();
        assert_eq!(flags.service.listen_addresses, [":9177"]);
        assert_eq!(flags.guests_max, 7);
        assert!(!flags.sync);
        assert_eq!(flags.store_path, PathBuf::from("y"));
    }
}

#[test]
fn an_unknown_key_names_the_nearest() {
    check_error(
        "guest: {max: 3}\n",
        &["--store.path=y"],
        &expect![
            "key guest.max of the settings file FILE: is not a setting; the nearest is guests.max"
        ],
    );
    check_error(
        "config.check: true\n",
        &["--store.path=y"],
        &expect![
            "key config.check of the settings file FILE: is not a setting; the nearest is web.config.file"
        ],
    );
}

#[test]
fn a_bad_value_names_its_origin() {
    check_error(
        "guests.max: many\n",
        &["--store.path=y"],
        &expect![[r#"
            error: invalid value 'many' for '--guests.max <GUESTS_MAX>': invalid digit found in string (from key guests.max of FILE)

            For more information, try '--help'.
        "#]],
    );
    // From the command line it is plain to see, and the file's good value does not matter.
    check_error(
        "guests.max: 3\n",
        &["--store.path=y", "--guests.max=many"],
        &expect![[r#"
            error: invalid value 'many' for '--guests.max <GUESTS_MAX>': invalid digit found in string

            For more information, try '--help'.
        "#]],
    );
}

#[test]
fn shapes_that_no_flag_can_have_are_refused() {
    check_error(
        "store.path: [a, b]\n",
        &[],
        &expect!["key store.path of the settings file FILE: takes one value, not a list"],
    );
    check_error(
        "store.path:\n",
        &[],
        &expect!["key store.path of the settings file FILE: has no value"],
    );
    check_error(
        "store: {path: a}\nstore.path: b\n",
        &[],
        &expect!["key store.path of the settings file FILE: is given twice"],
    );
    check_error(
        "cassandra.nodes: []\n",
        &[],
        &expect![
            "key cassandra.nodes of the settings file FILE: is an empty list; leave the key out instead"
        ],
    );
    let error = with_file("- a\n- b\n", &[]).unwrap_err();
    assert!(error.ends_with("the outermost value is not a map"), "{error}");
    let error = with_file("a: [\n", &[]).unwrap_err();
    assert!(error.contains("is not a YAML map of settings"), "{error}");
}

#[test]
fn a_missing_file_is_an_error() {
    let args = ["kanyun-test", "--config.file=/nowhere/settings.yml"].map(OsString::from);
    let error = parse::<Flags>(args).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the settings file /nowhere/settings.yml"), "{error}");
}

#[test]
fn help_and_version_are_no_faults_and_win_over_a_bad_file() {
    for (flag, expected) in [("--help", "[env: KANYUN_STORE_PATH]"), ("--version", "1.2.3")] {
        let args = ["kanyun-test", "--config.file=/nowhere", flag].map(OsString::from);
        let error = parse::<Flags>(args).unwrap_err();
        assert_eq!(error.exit_code(), 0);
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn the_help_reads_well() {
    let args = ["kanyun-test", "-h"].map(OsString::from);
    let help = parse::<Flags>(args).unwrap_err().to_string();
    expect![[r#"
        A service for the tests

        Usage: kanyun-test [OPTIONS] --store.path <FOLDER>

        Options:
          -h, --help     Print help (see more with '--help')
          -V, --version  Print version

        Service:
              --web.listen-address <HOST:PORT>  Address to listen on; `:PORT` means all interfaces; may be
                                                given several times [env: KANYUN_WEB_LISTEN_ADDRESS]
                                                [default: :9177]
              --web.systemd-socket              Listen on the sockets that systemd hands over, and on no
                                                address [env: KANYUN_WEB_SYSTEMD_SOCKET]
              --web.config.file <FILE>          Web config file with TLS, HTTP headers and basic auth users,
                                                in the format that Prometheus and its exporters share [env:
                                                KANYUN_WEB_CONFIG_FILE]
              --log.level <LEVEL>               Least grave level that is logged [env: KANYUN_LOG_LEVEL]
                                                [default: info] [possible values: error, warn, info, debug]
              --log.format <FORMAT>             Form of a log line [env: KANYUN_LOG_FORMAT] [default:
                                                logfmt] [possible values: logfmt, json]
              --config.file <FILE>              YAML file of settings, each under the name of its flag; a
                                                flag or an environment variable goes before it [env:
                                                KANYUN_CONFIG_FILE]
              --config.check                    Check all settings and the web config file, then exit

        Store:
              --store.path <FOLDER>      Where the store lives [env: KANYUN_STORE_PATH]
              --guests.max <GUESTS_MAX>  Guests at once [env: KANYUN_GUESTS_MAX] [default: 7]
              --cassandra.nodes <NODES>  Node to talk to; may be repeated [env: KANYUN_CASSANDRA_NODES]
              --store.sync               Fsync [env: KANYUN_STORE_SYNC]
    "#]].assert_eq(&help);
}
