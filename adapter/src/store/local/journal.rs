//! Looks through fjall's journals before fjall replays them. fjall (3.1.13) takes most damage for
//! the torn end of the last write, drops everything behind it and says nothing; and some torn ends
//! for damage, and does not open. Here what a power loss may leave is cut off, and anything else
//! is an error. Knows the journal's format (fjall's `journal/entry.rs`), not what a row is.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3Default;

use super::Sync;
use super::folder::{damaged, unreadable};
use crate::store::OpenError;

#[cfg(test)]
mod tests;

// The first byte of each entry.
const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
/// Ends every batch.
const TRAILER: [u8; 4] = *b"FJL\x03";
const READ_BYTES: usize = 64 << 10;

/// Judges all journals of a folder, and cuts off the torn end of the newest.
///
/// Every commit is synced before the next is written, so a power loss can tear the last one alone:
/// a whole batch behind a broken one is damage to what was acknowledged. Where commits are synced
/// at intervals, that second of them may be gone in any order.
pub(super) fn judge(mut journals: Vec<PathBuf>, sync: Sync) -> Result<(), OpenError> {
    journals.sort_by_key(|journal| number(journal));
    let Some((newest, sealed)) = journals.split_last() else { return Ok(()) };
    for journal in sealed {
        let (whole_bytes, rest) =
            look_through(journal).map_err(|error| unreadable(journal, &error))?;
        if rest != Rest::Nothing {
            return Err(damaged(journal, &format!("is damaged at byte {whole_bytes}")));
        }
    }
    let (whole_bytes, rest) = look_through(newest).map_err(|error| unreadable(newest, &error))?;
    match rest {
        Rest::Nothing => Ok(()),
        Rest::Batches if sync == Sync::Commit => Err(damaged(
            newest,
            &format!("is damaged at byte {whole_bytes}, with whole commits behind it"),
        )),
        Rest::Batches | Rest::Torn => {
            tracing::warn!(journal = %newest.display(), byte = whole_bytes, "cut off a commit that was not finished when the process or the machine ended");
            cut(newest, whole_bytes).map_err(|error| unreadable(newest, &error))
        }
    }
}

/// What is behind the last whole batch that stands in a row with the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing, or zeros, as fjall makes a journal with zeros.
    Nothing,
    /// Something, but no whole batch.
    Torn,
    /// Whole batches somewhere behind something else.
    Batches,
}

/// The bytes up to the end of the last whole batch in a row, and what is behind them.
fn look_through(journal: &Path) -> io::Result<(u64, Rest)> {
    let mut file = File::open(journal)?;
    let mut whole_bytes = 0;
    let mut entries = Entries { reader: BufReader::with_capacity(READ_BYTES, &file), read: 0 };
    while entries.batch()? {
        whole_bytes = entries.read;
    }
    file.seek(SeekFrom::Start(whole_bytes))?;
    Ok((whole_bytes, rest_of(&mut file)?))
}

/// What the rest of a file is.
fn rest_of(file: &mut File) -> io::Result<Rest> {
    let mut rest = BufReader::with_capacity(READ_BYTES, &mut *file);
    loop {
        let bytes = io::BufRead::fill_buf(&mut rest)?;
        if bytes.is_empty() {
            return Ok(Rest::Nothing);
        }
        if bytes.iter().any(|byte| *byte != 0) {
            break;
        }
        let count = bytes.len();
        io::BufRead::consume(&mut rest, count);
    }
    // Only where something is wrong: all of it, from a place that is before any batch.
    let begin = rest.stream_position()?;
    drop(rest);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    for place in 0..bytes.len() {
        let Some(tail) = bytes.get(place..) else { break };
        // A batch's first entry, and its first item right behind it.
        if tail.first() == Some(&START) && tail.get(START_BYTES) == Some(&ITEM) {
            let mut entries = Entries { reader: tail, read: 0 };
            if entries.batch()? {
                return Ok(Rest::Batches);
            }
        }
    }
    Ok(Rest::Torn)
}

/// A batch's first entry: its tag, the number of items, its sequence number.
const START_BYTES: usize = 1 + 4 + 8;

/// Reads entries one after another; never holds more than a piece of them.
struct Entries<R> {
    reader: R,
    read: u64,
}

impl<R: Read> Entries<R> {
    /// Reads one batch; says whether it is whole: all of its items are there, with their checksum.
    fn batch(&mut self) -> io::Result<bool> {
        match self.whole_batch() {
            Ok(whole) => Ok(whole.is_some()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn whole_batch(&mut self) -> io::Result<Option<()>> {
        let [tag, count @ .., _, _, _, _, _, _, _, _] = self.take::<START_BYTES>()?;
        if tag != START {
            return Ok(None);
        }
        let mut checksum = Xxh3Default::new();
        for _ in 0..u32::from_le_bytes(count) {
            if self.item(&mut checksum)?.is_none() {
                return Ok(None);
            }
        }
        let [tag, rest @ ..] = self.take::<{ 1 + 8 + 4 }>()?;
        let (said, trailer) = rest.split_at(8);
        let whole = tag == END && said == checksum.digest().to_le_bytes() && trailer == TRAILER;
        Ok(whole.then_some(()))
    }

    /// Tag, kind of value, compression, keyspace, and the lengths of key, value and bytes on disk.
    fn item(&mut self, checksum: &mut Xxh3Default) -> io::Result<Option<()>> {
        let head = self.take::<{ 3 + 8 + 2 + 4 + 4 }>()?;
        let [tag, kind, compression, _, _, _, _, _, _, _, _, key @ .., _, _, _, _, d0, d1, d2, d3] =
            head;
        if tag != ITEM || kind > 4 || compression > 1 {
            return Ok(None);
        }
        checksum.update(&head);
        let bytes =
            u64::from(u16::from_le_bytes(key)) + u64::from(u32::from_le_bytes([d0, d1, d2, d3]));
        let mut left = bytes;
        let mut piece = [0; 4096];
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            let (piece, _) = piece.split_at_mut(count);
            self.reader.read_exact(piece)?;
            checksum.update(piece);
            left -= count as u64;
        }
        self.read += bytes;
        Ok(Some(()))
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.read += N as u64;
        Ok(bytes)
    }
}

fn cut(journal: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(journal)?;
    file.set_len(bytes)?;
    file.sync_all()
}

/// The number in a journal's name; one without comes first, and fjall refuses it.
fn number(journal: &Path) -> Option<u64> {
    journal.file_stem()?.to_str()?.parse().ok()
}
