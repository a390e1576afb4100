//! What an operator asks: the subcommands and their doors, of a running adapter and of a store that
//! no adapter has open.

use std::path::Path;
use std::process::{Command, Output};

use adapter::wire::negotiate::Protocol;
use serde_json::Value;

use crate::adapter_process::{AdapterProcess, bare_command, command, now_ms, run};
use crate::part::free_port;
use crate::remote::series;

/// The begin of a minute some hours ago, whose window is sealed as soon as something came to it.
fn minute() -> i64 {
    (now_ms() - 6 * 3_600_000) / 60_000 * 60_000
}

/// An adapter that seals at once what comes late, with a guest's samples around a minute: it wrote
/// 700 bytes in that minute and 30 in the next.
fn adapter(folder: &Path, minute: i64) -> AdapterProcess {
    let mut command = command();
    command.arg("--store.path").arg(folder).arg("--seal.late-pause=10ms");
    let adapter = AdapterProcess::start(&mut command);
    let labels = [
        ("__name__", "libvirt_domain_block_stats_write_bytes_total"),
        ("domain", "instance-0000000a"),
        ("instance", "a:9177"),
        ("job", "libvirt"),
        ("target_device", "vda"),
        ("uuid", "u1"),
    ];
    let samples = [(-10, 100.0), (20, 300.0), (50, 800.0), (80, 830.0)];
    let samples = samples.map(|(seconds, value)| (minute + seconds * 1000, value));
    assert_eq!(adapter.write(Protocol::V2, &[series(&labels, &samples)]).status, 204);
    adapter.wait_for("a guest's rows in the ledger", || {
        let status: Value = serde_json::from_str(adapter.get("/api/v1/status").text()).unwrap();
        let rows = adapter.get("/api/v1/ledger?guest=u1");
        status["sealing"]["late_windows"] == 0 && rows.text().lines().count() == 5
    });
    adapter
}

fn url(adapter: &AdapterProcess) -> String {
    format!("--url=http://{}", adapter.address())
}

fn printed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = run(command);
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

fn refused(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = run(command);
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), stdout.len()), (Some(1), 0), "{stderr}");
    stderr
}

/// The words of each row of a printout.
fn rows(printout: &str) -> Vec<Vec<String>> {
    let rows = printout.lines().filter(|line| line.starts_with("blk_write"));
    rows.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn iso(minute: i64) -> String {
    adapter::model::instant::format(minute)
}

#[test]
fn the_ledger_of_a_guest_from_an_adapter_and_from_its_store() {
    let folder = tempfile::tempdir().unwrap();
    let minute = minute();
    let adapter = adapter(folder.path(), minute);
    let by_name = ["ledger", "--guest=instance-0000000a", "--family=blk_write,cpu"];
    let asked = printed(bare_command().args(by_name).arg(url(&adapter)));
    let row = |minute: i64, value: &str, samples: &str, flags: &str| {
        let column2 = (minute / 1000).to_string();
        let minute = iso(minute);
        ["blk_write", "vda", &minute, &column2, value, "bytes", samples, "0", flags]
            .map(str::to_owned)
            .to_vec()
    };
    let all = [
        row(minute - 60_000, "0", "1", "gap"),
        row(minute, "700", "2", "-"),
        row(minute + 60_000, "30", "1", "-"),
    ];
    assert_eq!(rows(&asked), all, "{asked}");
    assert!(asked.starts_with("key u1, from "), "{asked}");
    assert!(asked.trim_end().ends_with("not sealed yet"), "{asked}");

    let one = [format!("--from={}", minute / 1000), format!("--to={}", iso(minute + 60_000))];
    let asked = printed(bare_command().args(by_name).args(&one).arg(url(&adapter)));
    assert_eq!(rows(&asked), all[1..2], "{asked}");
    assert!(!asked.contains("not sealed yet"), "{asked}");
    let json = printed(bare_command().args(by_name).args(&one).arg("--json").arg(url(&adapter)));
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3, "{json}");
    assert_eq!(lines[1]["row"]["value"].to_string(), "700");

    let nobody = printed(bare_command().args(["ledger", "--guest=u2"]).arg(url(&adapter)));
    assert!(nobody.starts_with("no guest of this name has minutes"), "{nobody}");
    let wrong =
        refused(bare_command().args(["ledger", "--guest=u1", "--family=disk"]).arg(url(&adapter)));
    assert!(wrong.contains("answered 400") && wrong.contains("\"disk\" is none of"), "{wrong}");

    adapter.stop();
    let of_folder = |words: &[&str]| {
        let mut command = bare_command();
        command.arg(format!("--web.listen-address=127.0.0.1:{}", free_port()));
        command.args(words).arg("--store.path").arg(folder.path());
        printed(&mut command)
    };
    let found = of_folder(&by_name);
    assert_eq!(rows(&found), all, "{found}");
    let status = of_folder(&["status"]);
    assert!(status.starts_with("store     local, "), "{status}");
}

#[test]
fn the_status_of_a_store() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = adapter(folder.path(), minute());
    let text = printed(bare_command().arg("status").arg(url(&adapter)));
    for line in ["writes    taken", "lag       none", "late      none", "free      "] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line}\n{text}");
    }
    let json = printed(bare_command().args(["status", "--json"]).arg(url(&adapter)));
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["sealing"]["window_seconds"], 7200);
    assert_eq!(status["samples"]["retention_seconds"], 400 * 86_400);
    let tables = status["disk"]["tables"].as_array().unwrap();
    let spans = |name: &str| {
        let table = tables.iter().find(|table| table["table"] == name).unwrap();
        table["spans"].as_u64().unwrap()
    };
    assert!(["heads", "index", "chunks", "ledger"].iter().all(|name| spans(name) >= 1), "{json}");
    assert_eq!(spans("journal"), 0, "{json}");
    // What is written is in the journal first.
    assert!(status["disk"]["bytes"].as_u64().unwrap() > 0, "{json}");
    adapter.wait_for("the store's metrics", || {
        let page = adapter.get("/metrics");
        [
            "kanyun_adapter_store_bytes{table=\"journal\"}",
            "kanyun_adapter_store_free_bytes ",
            "kanyun_adapter_store_from_timestamp_seconds{table=\"ledger\"}",
            "kanyun_adapter_unsealed_from_timestamp_seconds ",
        ]
        .iter()
        .all(|series| page.text().lines().any(|line| line.starts_with(series)))
    });
    assert_eq!(adapter.get("/api/v1/status?verbose=1").status, 400);
    assert_eq!(adapter.get("/api/v1/ledger").status, 400);
    assert_eq!(adapter.get("/api/v1/ledger?guest=u1&from=2&to=1").status, 400);
}

#[test]
fn nobody_to_ask() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let port = free_port();
    let here = format!("--web.listen-address=127.0.0.1:{port}");
    let text = refused(bare_command().args([&here, "status"]).arg("--store.path").arg(&missing));
    for part in
        [&format!("nobody listens at http://127.0.0.1:{port}"), "there is no store in", "--url"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!missing.exists());
    // Who names an adapter wants no other answer.
    let text = refused(bare_command().arg("status").arg(format!("--url=http://127.0.0.1:{port}")));
    assert_eq!(text, format!("error: nobody listens at http://127.0.0.1:{port}\n"));
    let text = refused(bare_command().args(["status", "--url=127.0.0.1:9201"]));
    assert!(text.contains("write http://HOST:PORT"), "{text}");
    // An adapter that listens elsewhere has the store.
    let adapter = AdapterProcess::on_folder(folder.path());
    let text =
        refused(bare_command().args([&here, "status"]).arg("--store.path").arg(folder.path()));
    for part in ["in use by another process", "name a running adapter with --url"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    adapter.stop();
}
