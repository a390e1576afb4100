//! `--index`: a million series of one metric in each of some weeks. What a query costs that wants
//! few of them, one that wants all, and a start after a clean stop and after a kill.

use std::path::Path;
use std::time::{Duration, Instant};

use adapter::wire::messages;
use adapter::wire::negotiate::Protocol;

use crate::bodies::{Request, SAMPLES_PER_REQUEST};
use crate::remote::{self, Matcher};
use crate::sender::{self, client};
use crate::server::{self, Kind, Server};

const METRIC: &str = "kanyun_bench_device_bytes_total";
/// Series of one guest.
const DEVICES: usize = 60;
const SHARDS: usize = 4;
const WEEK_MS: i64 = 7 * 86_400_000;
/// Times that each query is asked; the first finds nothing in memory.
const ASKED: usize = 15;
/// Guests that a query names.
const NAMED: usize = 100;
/// A start is ready within this time (docs/benchmarks.md).
const START_MAX: Duration = Duration::from_secs(2);

/// How many series there are, and in how many weeks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) guests: usize,
    pub(crate) weeks: usize,
}

/// A guest of a generation: nothing of it is like another's.
fn uuid(generation: usize, guest: usize) -> String {
    let number = (generation as u64) << 32 | guest as u64;
    let (one, two) = (crate::fleet::hash(number), crate::fleet::hash(!number));
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        one >> 32,
        one & 0xffff,
        two & 0xfff,
        (two >> 12) & 0xfff,
        two >> 16
    )
}

/// One sample of every series of a generation of guests.
pub(crate) fn requests(generation: usize, guests: usize, time_ms: i64) -> Vec<Request> {
    let mut requests = Vec::with_capacity(guests * DEVICES / SAMPLES_PER_REQUEST + 1);
    let mut series = Vec::with_capacity(SAMPLES_PER_REQUEST);
    let mut full = |series: &mut Vec<messages::TimeSeries>| {
        let body = remote::write_body(Protocol::V2, series);
        requests.push(Request { shard: requests.len() % SHARDS, samples: series.len(), body });
        series.clear();
    };
    for guest in 0..guests {
        let uuid = uuid(generation, guest);
        let domain = domain(generation, guest);
        let instance = format!("node-{:04}:9177", guest / 25);
        for device in 0..DEVICES {
            let labels = [
                ("__name__", METRIC),
                ("device", &device.to_string()),
                ("domain", &domain),
                ("instance", &instance),
                ("job", "libvirt"),
                ("uuid", &uuid),
            ];
            series.push(remote::series(&labels, &[(time_ms, device as f64)]));
            if series.len() == SAMPLES_PER_REQUEST {
                full(&mut series);
            }
        }
    }
    if !series.is_empty() {
        full(&mut series);
    }
    requests
}

fn domain(generation: usize, guest: usize) -> String {
    format!("instance-{generation:02x}{guest:06x}")
}

/// Sends a generation; gives CPU-seconds of the server.
pub(crate) fn send(server: &Server, requests: Vec<Request>) -> Result<f64, String> {
    let before = server::cpu_seconds(server.pid())?;
    sender::send(&server.write_url(), Protocol::V2, SHARDS, requests)?;
    Ok(server::cpu_seconds(server.pid())? - before)
}

/// Runs it all and says what came out; an error where something is not as it must be.
pub(crate) fn run(program: &Path, size: Size, now_ms: i64) -> Result<(), String> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let server = Server::start(Kind::Adapter, program, folder.path(), None)?;
    let series = size.guests * DEVICES;
    let Size { guests, weeks } = size;
    println!("{series} series of one metric, {guests} guests, in each of {weeks} weeks");
    for week in (0..weeks).rev() {
        let time_ms = now_ms - week as i64 * WEEK_MS;
        let cpu = send(&server, requests(0, guests, time_ms))?;
        let cost = cpu / series as f64 * 1e6;
        println!("- written, {week} weeks back: {cost:.1} us of CPU a series");
    }
    let server = starts(program, folder.path(), server)?;
    queries(&server, size, now_ms)?;
    too_much(&server, size, now_ms)?;
    server.stop().map(drop)
}

/// Starts it again after a kill and after a clean stop.
fn starts(program: &Path, folder: &Path, server: Server) -> Result<Server, String> {
    println!("\n| start | ready after, ms | resident MiB |\n| --- | --- | --- |");
    let mut server = Some(server);
    let mut late = Vec::new();
    for (what, clean) in [("after kill -9", false), ("again", false), ("after a clean stop", true)]
    {
        if let Some(server) = server.take() {
            // Dropped, it is killed.
            if clean { server.stop().map(drop)? } else { drop(server) }
        }
        let started = Instant::now();
        let again = Server::start(Kind::Adapter, program, folder, None)?;
        let ready = started.elapsed();
        let resident = server::resident_mebibytes(again.pid())?;
        println!("| {what} | {} | {resident:.0} |", ready.as_millis());
        if ready > START_MAX {
            late.push(format!("ready {what} only after {ready:?}"));
        }
        server = Some(again);
    }
    if !late.is_empty() {
        println!("{}", late.join("; "));
    }
    server.ok_or_else(|| "not started".to_owned())
}

/// Asks for few of the series, in several ways.
fn queries(server: &Server, size: Size, now_ms: i64) -> Result<(), String> {
    let every = (size.guests / NAMED).max(1);
    let named: Vec<usize> = (0..size.guests).step_by(every).take(NAMED).collect();
    let of = |text: fn(usize, usize) -> String| {
        named.iter().map(|guest| text(0, *guest)).collect::<Vec<_>>().join("|")
    };
    let (uuids, domains) = (of(uuid), of(domain));
    let guests = named.len();
    let metric = ("=", "__name__", METRIC);
    // Domains are numbered in hexadecimal: one begin stands for up to 16 guests.
    let prefix = format!("{}.*", &domain(0, 0)[..domain(0, 0).len() - 1]);
    let of_prefix = size.guests.min(16);
    let one = ("=", "device", "7");
    let all = (now_ms - (size.weeks as i64) * WEEK_MS, now_ms + 1_000);
    let last = (now_ms - 600_000, now_ms + 1_000);
    let asked: [(&str, &[Matcher<'_>], usize); 6] = [
        ("uuid=~ of 100, one device", &[metric, ("=~", "uuid", &uuids), one], guests),
        ("uuid=~ of 100", &[metric, ("=~", "uuid", &uuids)], guests * DEVICES),
        ("domain=~ of 100, one device", &[metric, ("=~", "domain", &domains), one], guests),
        ("domain=~ of 100", &[metric, ("=~", "domain", &domains)], guests * DEVICES),
        ("domain=~ a prefix", &[metric, ("=~", "domain", &prefix)], of_prefix * DEVICES),
        (
            "domain=~ a prefix, job, no name",
            &[("=~", "domain", &prefix), ("=", "job", "libvirt")],
            of_prefix * DEVICES,
        ),
    ];
    println!(
        "\n| query | range | series | first, ms | median, ms |\n| --- | --- | --- | --- | --- |"
    );
    for (what, matchers, expected) in asked {
        for (range_name, range, labels_only) in
            [("10 minutes, samples", last, false), ("all weeks, labels", all, true)]
        {
            let mut took = Vec::with_capacity(ASKED);
            for _ in 0..ASKED {
                let started = Instant::now();
                let (status, body) = ask(server, range, matchers, labels_only)?;
                took.push(started.elapsed().as_secs_f64() * 1e3);
                let found =
                    if status == 200 { remote::streamed(&body, 1).remove(0).len() } else { 0 };
                if found != expected {
                    return Err(format!("{what}: {status}, {found} series, not {expected}"));
                }
            }
            let first = took[0];
            took.sort_by(f64::total_cmp);
            println!(
                "| {what} | {range_name} | {expected} | {first:.1} | {:.1} |",
                took[ASKED / 2]
            );
        }
    }
    Ok(())
}

/// Asks for all series at once: the answer is whole or an error, and memory stays bounded.
fn too_much(server: &Server, size: Size, now_ms: i64) -> Result<(), String> {
    let before = server::peak_mebibytes(server.pid())?;
    let started = Instant::now();
    let matchers = [("=", "__name__", METRIC), ("!=", "device", "none")];
    let (status, body) = ask(server, (now_ms - 600_000, now_ms + 1_000), &matchers, true)?;
    let answer = if status == 200 {
        format!("{} series", remote::streamed(&body, 1).remove(0).len())
    } else {
        format!("{status}: {}", String::from_utf8_lossy(&body).trim())
    };
    let peak = server::peak_mebibytes(server.pid())?;
    let series = size.guests * DEVICES;
    println!(
        "\nAll {series} series at once, after {:.1} s: {answer}. Peak memory {peak:.0} MiB, {before:.0} before.",
        started.elapsed().as_secs_f64()
    );
    let whole = status == 200 && answer == format!("{series} series");
    if whole || (400..500).contains(&status) { Ok(()) } else { Err(answer) }
}

fn ask(
    server: &Server,
    range: (i64, i64),
    matchers: &[Matcher<'_>],
    labels_only: bool,
) -> Result<(u16, Vec<u8>), String> {
    let mut query = remote::query(range, matchers);
    if labels_only {
        query.hints = Some(messages::ReadHints { func: "series".to_owned(), ..Default::default() });
    }
    let (_, url) = server.read_door();
    let mut answer = client()
        .post(&url)
        .header("content-type", "application/x-protobuf")
        .header("content-encoding", "snappy")
        .send(&remote::read_body(&[query], &[1])[..])
        .map_err(|error| format!("{url}: {error}"))?;
    let body = answer.body_mut().with_config().limit(1 << 30).read_to_vec();
    Ok((answer.status().as_u16(), body.map_err(|error| format!("{url}: {error}"))?))
}
