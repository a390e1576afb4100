//! Damage on disk: each kind of file in the data folder loses a bit, its end, a page, or itself.
//! The next start is refused with a text that names the folder and says what to do, or every read
//! is right, or it is an error of ours: never a panic, never a wrong or a shorter answer.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use adapter::wire::negotiate::Protocol;

use crate::adapter_process::{AdapterProcess, now_ms};
use crate::load::{self, Sender};
use crate::power_loss::dice::Dice;
use crate::remote::series;

/// `KANYUN_DAMAGES` sets another number, as `make soak` does.
const DAMAGES: u64 = 12;
const PAGE: u64 = 4096;

#[derive(Clone, Copy, Debug)]
enum Damage {
    Bit,
    Page,
    End,
    Whole,
}

#[test]
fn damage_is_named_or_harmless() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().expect("a number"));
    let seed = number("KANYUN_DAMAGE_SEED").unwrap_or_else(|| now_ms().cast_unsigned());
    println!("KANYUN_DAMAGE_SEED={seed}");
    let mut dice = Dice::new(seed);
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let senders = written(&whole);
    let kinds = kinds(&whole);
    println!("{:?}", kinds.keys());
    assert!(kinds.len() >= 8, "{kinds:?}");
    let (mut refused, mut right, mut refused_reads) = (0, 0, 0);
    for _ in 0..number("KANYUN_DAMAGES").unwrap_or(DAMAGES) {
        // Kinds in turn would miss that some have many files.
        let names: Vec<&String> = kinds.keys().collect();
        let kind = dice.pick(&names);
        let file = kinds[kind][dice.below(kinds[kind].len() as u64) as usize].clone();
        let damage =
            dice.pick(&[Damage::Bit, Damage::Bit, Damage::Page, Damage::End, Damage::Whole]);
        let data = folder.path().join("damaged");
        copy(&whole, &data);
        let place = do_damage(&data.join(&file), damage, &mut dice);
        println!("{damage:?} of {} at {place}", file.display());
        match AdapterProcess::try_start(&mut load::service(&data)) {
            Err((status, log)) => {
                refused += 1;
                assert_eq!(status.code(), Some(1), "{log}");
                assert!(!log.contains("panicked"), "{log}");
                let named = log.contains(data.to_str().unwrap()) && log.contains("--store.path");
                assert!(named, "the error does not name the folder and what to do: {log}");
            }
            Ok(adapter) => {
                let newest_commits = file.extension().is_some_and(|end| end == "jnl");
                if newest_commits && !matches!(damage, Damage::Bit) {
                    // The end of a journal is what a power loss takes: the log says so.
                    check_parts(&adapter, &senders);
                } else if load::check_or_refused(&adapter, &senders) {
                    right += 1;
                } else {
                    refused_reads += 1;
                }
                adapter.kill();
            }
        }
        fs::remove_dir_all(&data).unwrap();
    }
    println!("{refused} starts refused, {right} right, {refused_reads} with reads refused");
}

/// A folder with everything in it: tables, chunks, ledger rows, and a journal that is needed.
fn written(data: &Path) -> Vec<Sender> {
    let mut senders = load::senders();
    for part in 0..2 {
        let adapter = AdapterProcess::start(&mut load::service(data));
        let address = adapter.address();
        let alive = Mutex::new(Some(adapter));
        load::run(&mut senders, address, |acknowledged| {
            if acknowledged == 150 {
                alive.lock().unwrap().take().unwrap().kill();
            }
        });
        if part == 0 {
            // A later journal makes this one a sealed one, which is made to tables at the start.
            AdapterProcess::start(&mut load::service(data)).stop();
            load::seal_journal(data);
            let adapter = AdapterProcess::start(&mut load::service(data));
            adapter.wait_for("tables", || load::journals(data).len() == 1);
            adapter.kill();
        }
    }
    // The last commit's damage is what a power loss may leave, so it is none that is looked for.
    let adapter = AdapterProcess::start(&mut load::service(data));
    load::check_everything(&adapter, &senders);
    let last = [series(&[("__name__", "last"), ("uuid", "last")], &[(now_ms(), 1.0)])];
    assert_eq!(adapter.write(Protocol::V2, &last).status, 204);
    adapter.kill();
    senders
}

/// The files of a folder by kind: names with their numbers taken out.
fn kinds(data: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    let mut folders = vec![data.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let file = path.strip_prefix(data).unwrap().to_owned();
            let text = file.to_str().unwrap();
            // fjall's own keyspace is a kind of its own.
            let (first, rest) = match text.strip_prefix("keyspaces/0/") {
                Some(rest) => ("names/", rest),
                None => ("", text),
            };
            // A name that was left by a kill in the middle of a rename is nobody's.
            if !rest.contains(".tmp") {
                let kind: String = rest.chars().filter(|c| !c.is_ascii_digit()).collect();
                kinds.entry(format!("{first}{kind}")).or_default().push(file);
            }
        }
    }
    for files in kinds.values_mut() {
        files.sort();
    }
    kinds
}

fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    let copied = command.args(["-r", "--sparse=always"]).arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Damages a file somewhere in what was written to it; says where.
fn do_damage(path: &Path, damage: Damage, dice: &mut Dice) -> u64 {
    let bytes = fs::read(path).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1) as u64;
    let place = dice.below(written);
    let file = fs::File::options().write(true).open(path).unwrap();
    match damage {
        Damage::Bit if written > 0 => {
            let place_in_bytes = usize::try_from(place).unwrap();
            let bit = 1 << dice.below(8);
            file.write_all_at(&[bytes[place_in_bytes] ^ bit], place).unwrap();
        }
        Damage::Page if written > 0 => {
            let begin = place / PAGE * PAGE;
            let end = (begin + PAGE).min(bytes.len() as u64);
            file.write_all_at(&vec![0; usize::try_from(end - begin).unwrap()], begin).unwrap();
        }
        Damage::End => file.set_len(place).unwrap(),
        Damage::Bit | Damage::Page | Damage::Whole => fs::remove_file(path).unwrap(),
    }
    place
}

/// Whatever is read was sent; of each sender it may be less than all.
fn check_parts(adapter: &AdapterProcess, senders: &[Sender]) {
    load::check_nothing_else(adapter, senders);
}
