//! `--churn`: guests that are born, scraped once and gone, generation after generation. Memory must
//! stay where it is once the caches are full.

use std::path::Path;

use crate::index::{requests, send};
use crate::server::{self, Kind, Server};

/// Memory of the last third of the generations may be above that of the third before by this much:
/// memtables fill and are written out meanwhile.
const GROWTH_MAX: f64 = 1.15;

/// Runs it and says what came out; an error where memory grows.
pub(crate) fn run(
    program: &Path,
    guests: usize,
    generations: usize,
    now_ms: i64,
) -> Result<(), String> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|e| e.to_string())?;
    let server = Server::start(Kind::Adapter, program, folder.path(), None)?;
    println!("{generations} generations of {guests} guests, 60 series each");
    println!(
        "| generation | series so far | CPU us a series | resident MiB |\n| --- | --- | --- | --- |"
    );
    let mut resident = Vec::with_capacity(generations);
    for generation in 0..generations {
        let sent = requests(generation, guests, now_ms);
        let series: usize = sent.iter().map(|request| request.samples).sum();
        let cpu = send(&server, sent)? / series as f64 * 1e6;
        let mebibytes = server::resident_mebibytes(server.pid())?;
        println!(
            "| {} | {} | {cpu:.1} | {mebibytes:.0} |",
            generation + 1,
            series * (generation + 1)
        );
        resident.push(mebibytes);
    }
    server.stop()?;
    let third = generations / 3;
    let most = |part: &[f64]| part.iter().copied().fold(0.0, f64::max);
    let (before, last) = (most(&resident[third..2 * third]), most(&resident[2 * third..]));
    println!("most in the second third {before:.0} MiB, in the last {last:.0} MiB");
    if third > 0 && last > before * GROWTH_MAX {
        return Err("memory grows with the guests that are gone".to_owned());
    }
    Ok(())
}
