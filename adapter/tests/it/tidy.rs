//! The project's shape, held by a test: who may name which library, which way modules may point,
//! how long files and functions may be. ARCHITECTURE.md says why.

use std::path::{Path, PathBuf};
use std::process::Command;

use syn::visit::Visit;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const HEADER_LINES_MAX: usize = 8;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file that git tracks or would track and whose name fits, with its text.
pub(crate) fn files(pattern: &str) -> Vec<(String, String)> {
    let list = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", pattern])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        list.status.success(),
        "git ls-files failed: {}",
        String::from_utf8_lossy(&list.stderr)
    );
    let names = String::from_utf8(list.stdout).unwrap();
    let existing = names.lines().filter(|name| root().join(name).exists());
    existing
        .map(|name| (name.to_owned(), std::fs::read_to_string(root().join(name)).unwrap()))
        .collect()
}

fn sources() -> Vec<(String, String)> {
    let sources = files("*.rs");
    assert!(sources.len() > 30, "only {} files found", sources.len());
    sources
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/")
        || name.ends_with("/tests.rs")
        || name.contains("/benches/")
        || name.starts_with("fuzz/")
        || name.ends_with("contract.rs")
}

/// The part of a file that is compiled into the binary.
fn production(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

fn code_lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// Whether a file's code names a path root, such as `scylla::`, or a crate in a `use`.
fn names(text: &str, path: &str) -> bool {
    code_lines(text).any(|line| {
        line.match_indices(path).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = &line[at + path.len()..];
            let begins =
                before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':' && c != '.');
            begins
                && (after.starts_with("::")
                    || after.starts_with(';') && line.trim_start().starts_with("use "))
        })
    })
}

/// Library, and the beginnings of the names of the files that may name it (DESIGN.md, "Names and
/// layout"). ureq is the blocking client of the subcommands, which have nothing else to do meanwhile.
#[test]
fn each_library_stays_in_its_room() {
    let rooms: &[(&str, &[&str])] = &[
        ("virt", &["exporter/src/libvirt.rs", "exporter/src/libvirt/"]),
        ("hyper", &["serve/src/"]),
        ("hyper_util", &["serve/src/"]),
        ("rustls", &["serve/src/"]),
        ("ureq", &["serve/src/client.rs"]),
        ("tokio_rustls", &["serve/src/"]),
        ("prost", &["adapter/src/wire/", "adapter/src/wire.rs"]),
        ("snap", &["adapter/src/wire/", "adapter/src/wire.rs"]),
        ("crc32c", &["adapter/src/wire/"]),
        ("scylla", &["adapter/src/store/cassandra"]),
        ("fjall", &["adapter/src/store/local"]),
        ("regex", &["adapter/src/model/re2", "exporter/src/selection/", "exporter/src/config/"]),
        ("regex_syntax", &["adapter/src/model/re2"]),
        (
            "xxhash_rust",
            &[
                "adapter/src/model/",
                "adapter/src/engine/",
                "adapter/src/copy/",
                "adapter/src/store/cassandra/",
                "adapter/src/store/local/",
            ],
        ),
        ("pco", &["adapter/src/engine/chunk"]),
        ("quick_cache", &["adapter/src/engine/index.rs"]),
        ("roxmltree", &["exporter/src/xml"]),
        ("jiff", &["adapter/src/model/instant.rs"]),
        ("configparser", &["adapter/src/kanyun_conf.rs"]),
        ("csv", &["adapter/src/usage/minutes.rs", "adapter/src/client/table.rs"]),
        ("form_urlencoded", &["adapter/src/http/"]),
        ("procfs", &["exporter/src/start_time.rs", "serve/src/own_metrics/"]),
        (
            "rustix",
            &[
                "adapter/src/store/local/",
                "adapter/src/read/room.rs",
                "adapter/src/zeromq",
                "serve/src/sockets.rs",
            ],
        ),
        ("listenfd", &["serve/src/sockets.rs"]),
        ("zmq", &["adapter/src/zeromq"]),
        ("tempfile", &["adapter/src/read/room.rs"]),
        ("ipnet", &["adapter/src/worker/sources.rs"]),
        (
            "clap",
            &[
                "serve/src/settings",
                "serve/src/log.rs",
                "exporter/src/config",
                "adapter/src/config.rs",
                "adapter/src/service.rs",
                "adapter/src/client/",
            ],
        ),
    ];
    let mut wrong = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name)) {
        for (library, allowed) in rooms {
            if names(production(text), library)
                && !allowed.iter().any(|room| name.starts_with(room))
            {
                wrong.push(format!("{name} names {library}, which belongs to {allowed:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A file or folder, and what it must not name.
const ARROWS: &[(&str, &[&str])] = &[
    ("serve/src/", &["exporter", "adapter"]),
    ("exporter/src/", &["adapter"]),
    ("adapter/src/", &["exporter"]),
    (
        "adapter/src/model",
        &[
            "crate::wire",
            "crate::store",
            "crate::engine",
            "crate::limits",
            "crate::metrics",
            "serve",
            "tokio",
        ],
    ),
    (
        "adapter/src/ledger",
        &[
            "crate::wire",
            "crate::store",
            "crate::engine",
            "crate::usage",
            "crate::http",
            "crate::limits",
            "crate::metrics",
            "serve",
            "tokio",
        ],
    ),
    (
        "adapter/src/wire",
        &[
            "crate::store",
            "crate::engine",
            "crate::write",
            "crate::read",
            "crate::http",
            "serve",
            "tokio",
        ],
    ),
    (
        "adapter/src/store",
        &[
            "crate::wire",
            "crate::engine",
            "crate::write",
            "crate::read",
            "crate::http",
            "crate::metrics",
        ],
    ),
    (
        "adapter/src/engine",
        &[
            "crate::wire",
            "crate::write",
            "crate::read",
            "crate::http",
            "crate::store::local",
            "crate::store::cassandra",
        ],
    ),
    (
        "adapter/src/meter",
        &[
            "crate::wire",
            "crate::write",
            "crate::read",
            "crate::usage",
            "crate::sealer",
            "crate::status",
            "crate::http",
            "crate::store::local",
            "crate::store::cassandra",
            "crate::store::memory",
            "serve",
        ],
    ),
    (
        "adapter/src/sealer",
        &[
            "crate::wire",
            "crate::write",
            "crate::read",
            "crate::usage",
            "crate::status",
            "crate::http",
            "crate::store::local",
            "crate::store::cassandra",
            "crate::store::memory",
        ],
    ),
    (
        "adapter/src/status",
        &[
            "crate::wire",
            "crate::write",
            "crate::read",
            "crate::usage",
            "crate::sealer",
            "crate::store",
            "crate::http",
        ],
    ),
    (
        "adapter/src/client",
        &[
            "crate::wire",
            "crate::store",
            "crate::engine",
            "crate::service",
            "crate::usage",
            "crate::http",
        ],
    ),
    (
        "adapter/src/copy",
        &[
            "crate::wire",
            "crate::service",
            "crate::sealer",
            "crate::usage",
            "crate::http",
            "crate::store::local",
            "crate::store::cassandra",
            "crate::store::memory",
        ],
    ),
    ("adapter/src/command", &["crate::wire", "crate::store", "crate::service", "crate::sealer"]),
    ("adapter/src/zeromq", &["crate::wire", "crate::store", "crate::read", "crate::http"]),
    (
        "adapter/src/worker",
        &[
            "crate::wire",
            "crate::store",
            "crate::engine",
            "crate::feed",
            "crate::metrics",
            "crate::zeromq",
            "crate::http",
            "serve",
            "tokio",
        ],
    ),
    ("adapter/src/feed", &["crate::wire", "crate::store", "crate::zeromq", "crate::http", "zmq"]),
    ("adapter/src/write", &["crate::http", "crate::read", "serve"]),
    ("adapter/src/read", &["crate::http", "crate::write", "serve"]),
    (
        "exporter/src/families",
        &["crate::libvirt", "crate::collect", "crate::config", "serve", "tokio"],
    ),
    ("exporter/src/snapshot", &["crate::libvirt", "crate::families", "serve", "tokio"]),
    (
        "exporter/src/selection",
        &["crate::libvirt", "crate::families", "crate::config", "serve", "tokio"],
    ),
    (
        "exporter/src/recording",
        &["crate::libvirt", "crate::collect", "crate::families", "serve", "tokio"],
    ),
    ("exporter/src/worker", &["crate::families", "crate::collect", "serve"]),
    ("exporter/src/libvirt", &["crate::families", "crate::collect", "crate::worker", "tokio"]),
    ("exporter/src/collect/merge", &["crate::libvirt", "crate::families", "serve", "tokio"]),
    ("exporter/src/tally", &["crate::libvirt", "crate::families", "serve", "tokio"]),
    ("exporter/src/stats", &["crate::libvirt", "crate::families", "serve", "tokio"]),
    ("exporter/src/traffic", &["crate::libvirt", "crate::collect", "crate::families", "serve"]),
    ("exporter/src/command", &["crate::libvirt", "crate::families", "serve"]),
    (
        "adapter/src/report",
        &["crate::usage", "crate::engine", "crate::store", "crate::http", "serve", "tokio"],
    ),
    (
        "adapter/src/legacy",
        &["crate::usage", "crate::engine", "crate::store", "crate::http", "serve", "tokio"],
    ),
    (
        "adapter/src/usage",
        &["crate::wire", "crate::store", "crate::read", "crate::write", "crate::http"],
    ),
];

#[test]
fn modules_point_one_way() {
    let mut wrong = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name)) {
        for (from, forbidden) in ARROWS.iter().filter(|(from, _)| name.starts_with(from)) {
            for path in forbidden.iter().filter(|path| names(production(text), path)) {
                wrong.push(format!("{name} names {path}, which {from} must not know"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_are_short_and_files_say_what_they_own() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{name} has {lines} lines, more than {FILE_LINES_MAX}"));
        }
        let header = text.lines().take_while(|line| line.starts_with("//!")).count();
        if header == 0 || header > HEADER_LINES_MAX {
            wrong.push(format!(
                "{name} needs a //! header of 1 to {HEADER_LINES_MAX} lines, has {header}"
            ));
        }
        if name.ends_with("/mod.rs") && !name.contains("/tests/") {
            wrong.push(format!("{name}: a module is foo.rs beside foo/"));
        }
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut functions = Functions { file: &name, wrong: &mut wrong };
        functions.visit_file(&file);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

struct Functions<'a> {
    file: &'a str,
    wrong: &'a mut Vec<String>,
}

impl Functions<'_> {
    fn check(&mut self, name: &syn::Ident, block: &syn::Block) {
        let lines = block.brace_token.span.close().end().line
            - block.brace_token.span.open().start().line
            + 1;
        if lines > FUNCTION_LINES_MAX {
            self.wrong.push(format!(
                "{}: {name} has {lines} lines, more than {FUNCTION_LINES_MAX}",
                self.file
            ));
        }
    }
}

impl Visit<'_> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &syn::ItemFn) {
        self.check(&function.sig.ident, &function.block);
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &syn::ImplItemFn) {
        self.check(&function.sig.ident, &function.block);
        syn::visit::visit_impl_item_fn(self, function);
    }
}

#[test]
fn only_one_file_is_unsafe_and_it_says_why() {
    for (name, text) in sources() {
        let marks = code_lines(production(&text)).any(|line| {
            line.contains("unsafe {") || line.contains("unsafe fn") || line.contains("unsafe impl")
        });
        let allowed = name == "exporter/src/libvirt/records.rs" || name.contains("/tests/");
        assert!(!marks || allowed, "{name} has unsafe code");
        assert!(
            !marks || text.contains("SAFETY:"),
            "{name} does not say why its unsafe code is sound"
        );
    }
}

#[test]
fn only_main_reads_the_clock_and_the_environment() {
    for (name, text) in sources().iter().filter(|(name, _)| !is_test(name)) {
        let production = production(text);
        if name != "serve/src/clock.rs" {
            assert!(
                !production.contains("SystemTime::now"),
                "{name} reads the wall clock: take a Clock"
            );
        }
        assert!(
            name == "serve/src/settings.rs" || !production.contains("env::var("),
            "{name} reads the environment: settings come through serve::settings"
        );
    }
}
