//! Encoded samples that wait until a read is whole, in the order of their places: in memory, and,
//! where that is not enough, in sorted runs of a temporary file, merged as they are sent.
//! Knows bytes and places, neither series nor frames.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::room::{Room, Spill};
use crate::query::QueryError;

/// Rather than cut off a shorter piece, a new run is begun.
const PIECE_MIN: usize = 256;
/// Memory grows by so much: doubling would take twice what is allowed.
const GROWTH: usize = 1 << 20;
/// Of each run, so much is read at once.
const RUN_BUFFER: usize = 32 << 10;
/// A place and a length, before what a run holds of that place.
const HEADER: usize = 8;

/// Bytes by place, under way.
#[derive(Debug)]
pub(super) struct Waiting {
    room: Arc<Room>,
    held: Held,
    spilled: Option<Spilled>,
}

/// What waits in memory.
#[derive(Debug)]
struct Held {
    bytes: Vec<u8>,
    /// In the order in which they came, and so by time for each place.
    pieces: Vec<Piece>,
    allowed: usize,
    memory: Option<OwnedSemaphorePermit>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    place: u32,
    start: u32,
    length: u32,
}

/// What waits on the disk: each run begins where the one before it ends.
#[derive(Debug)]
struct Spilled {
    spill: Spill,
    run_ends: Vec<u64>,
}

/// All that waited, whole. It is taken place by place, upwards.
#[derive(Debug)]
pub(super) enum Sorted {
    /// In memory, sorted by place.
    Held(Memory),
    /// On the disk; taking blocks.
    Spilled(Merge),
}

/// Pieces in memory, sorted by place, and how many are taken.
#[derive(Debug)]
pub(super) struct Memory {
    held: Held,
    taken: usize,
}

/// The runs of a temporary file, each with its next place.
#[derive(Debug)]
pub(super) struct Merge {
    spill: Spill,
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    /// What was read and not taken yet.
    buffer: Vec<u8>,
    taken: usize,
    /// What was not read yet.
    next: u64,
    end: u64,
    /// The next place and its bytes; `None` at the end.
    head: Option<(u32, usize)>,
}

impl Waiting {
    pub(super) fn new(room: Arc<Room>) -> Waiting {
        let held = Held::new(&room);
        Waiting { room, held, spilled: None }
    }

    /// Adds bytes behind those that a place has already.
    pub(super) async fn push(&mut self, place: u32, bytes: &[u8]) -> Result<(), QueryError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some((now, later)) = rest.split_at_checked(self.held.fitting(rest.len())) else {
                break;
            };
            if !now.is_empty() {
                self.held.push(place, now);
                rest = later;
            } else if !self.held.grow(&self.room) {
                self.spill().await?;
            }
        }
        Ok(())
    }

    /// Everything came.
    pub(super) async fn finish(mut self) -> Result<Sorted, QueryError> {
        if self.spilled.is_some() && !self.held.pieces.is_empty() {
            // Memory is for reads that have not come as far yet.
            self.spill().await?;
        }
        Ok(match self.spilled {
            Some(spilled) => Sorted::Spilled(Merge::new(spilled)),
            None => {
                self.held.pieces.sort_by_key(|piece| piece.place);
                Sorted::Held(Memory { held: self.held, taken: 0 })
            }
        })
    }

    /// Writes what is in memory to the disk, as one more run. A read that is given up meanwhile
    /// ends there, and its file with it.
    async fn spill(&mut self) -> Result<(), QueryError> {
        let room = Arc::clone(&self.room);
        let mut held = std::mem::replace(&mut self.held, Held::new(&self.room));
        let spilled = self.spilled.take();
        let written = tokio::task::spawn_blocking(move || {
            let spilled = held.write(&room, spilled)?;
            Ok::<_, QueryError>((held, spilled))
        });
        let (held, spilled) =
            written.await.map_err(|error| QueryError::TryAgain(error.to_string()))??;
        self.held = held;
        self.spilled = Some(spilled);
        Ok(())
    }
}

impl Held {
    fn new(room: &Room) -> Held {
        let allowed = room.sizes.least * room.sizes.step;
        Held { bytes: Vec::new(), pieces: Vec::new(), allowed, memory: None }
    }

    /// How many of so many bytes fit as one piece; none where it is not worth a piece.
    fn fitting(&self, bytes: usize) -> usize {
        let used = self.bytes.len() + (self.pieces.len() + 1) * size_of::<Piece>();
        let free = self.allowed.saturating_sub(used);
        if free < bytes.min(PIECE_MIN) { 0 } else { bytes.min(free) }
    }

    /// Gets another step, where this read and all of them may have it.
    fn grow(&mut self, room: &Room) -> bool {
        let sizes = room.sizes;
        if self.allowed >= sizes.most * sizes.step {
            return false;
        }
        let Some(more) = room.memory() else { return false };
        match &mut self.memory {
            Some(memory) => memory.merge(more),
            None => self.memory = Some(more),
        }
        self.allowed += sizes.step;
        true
    }

    fn push(&mut self, place: u32, bytes: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < bytes.len() {
            self.bytes.reserve_exact(bytes.len().max(GROWTH));
        }
        // What is held is bounded far below 4 GiB.
        let [start, length] =
            [self.bytes.len(), bytes.len()].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(bytes);
        self.pieces.push(Piece { place, start, length });
    }

    fn bytes_of(&self, piece: Piece) -> &[u8] {
        let (start, length) = (piece.start as usize, piece.length as usize);
        self.bytes.get(start..start + length).unwrap_or_default()
    }

    /// Writes a run and forgets what it holds. Blocks.
    fn write(&mut self, room: &Room, spilled: Option<Spilled>) -> Result<Spilled, QueryError> {
        self.pieces.sort_by_key(|piece| piece.place);
        let places = || self.pieces.chunk_by(|one, next| one.place == next.place);
        let bytes = self.bytes.len() + HEADER * places().count();
        let (spill, mut run_ends) =
            spilled.map_or((None, Vec::new()), |spilled| (Some(spilled.spill), spilled.run_ends));
        let mut spill = room.disk(spill, bytes)?;
        let write = |mut file: BufWriter<&File>| {
            for pieces in places() {
                let place = pieces.first().map_or(0, |piece| piece.place);
                let length: u32 = pieces.iter().map(|piece| piece.length).sum();
                file.write_all(&place.to_le_bytes())?;
                file.write_all(&length.to_le_bytes())?;
                for piece in pieces {
                    file.write_all(self.bytes_of(*piece))?;
                }
            }
            file.flush()
        };
        write(BufWriter::with_capacity(8 * RUN_BUFFER, &spill.file))
            .map_err(|error| room.refused(&error))?;
        spill.length += bytes as u64;
        run_ends.push(spill.length);
        self.bytes.clear();
        self.pieces.clear();
        Ok(Spilled { spill, run_ends })
    }
}

impl Sorted {
    /// The bytes of a place, in the order in which they came. Asked for upwards.
    pub(super) fn take(&mut self, place: u32) -> io::Result<Vec<u8>> {
        match self {
            Sorted::Held(memory) => Ok(memory.take(place)),
            Sorted::Spilled(merge) => merge.take(place),
        }
    }

    /// Whether taking reads a file.
    pub(super) fn blocks(&self) -> bool {
        matches!(self, Sorted::Spilled(_))
    }
}

impl Memory {
    fn take(&mut self, place: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Some(piece) =
            self.held.pieces.get(self.taken).filter(|piece| piece.place <= place)
        {
            if piece.place == place {
                bytes.extend_from_slice(self.held.bytes_of(*piece));
            }
            self.taken += 1;
        }
        bytes
    }
}

impl Merge {
    fn new(Spilled { spill, run_ends }: Spilled) -> Merge {
        let starts = std::iter::once(0).chain(run_ends.iter().copied());
        let runs = starts.zip(&run_ends).map(|(start, end)| Run {
            buffer: Vec::new(),
            taken: 0,
            next: start,
            end: *end,
            head: None,
        });
        let runs = runs.collect();
        Merge { spill, runs }
    }

    fn take(&mut self, place: u32) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for run in &mut self.runs {
            while let Some((of, length)) =
                run.head(&self.spill.file)?.filter(|(of, _)| *of <= place)
            {
                let before = bytes.len();
                run.take(&self.spill.file, length, &mut bytes)?;
                if of < place {
                    bytes.truncate(before);
                }
                run.head = None;
            }
        }
        Ok(bytes)
    }
}

impl Run {
    /// The next place and its length; `None` at the end.
    fn head(&mut self, file: &File) -> io::Result<Option<(u32, usize)>> {
        let is_over = self.taken == self.buffer.len() && self.next == self.end;
        if self.head.is_none() && !is_over {
            let mut header = Vec::with_capacity(HEADER);
            self.take(file, HEADER, &mut header)?;
            let (place, length) = header.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
            let length = length.first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
            self.head = Some((u32::from_le_bytes(*place), u32::from_le_bytes(*length) as usize));
        }
        Ok(self.head)
    }

    /// Appends the next bytes of the run.
    fn take(&mut self, file: &File, length: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let mut left = length;
        while left > 0 {
            if self.taken == self.buffer.len() {
                let unread = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
                if unread == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.buffer.resize(unread.min(RUN_BUFFER), 0);
                file.read_exact_at(&mut self.buffer, self.next)?;
                self.next += self.buffer.len() as u64;
                self.taken = 0;
            }
            let ready = self.buffer.get(self.taken..).unwrap_or_default();
            let part = ready.get(..left.min(ready.len())).unwrap_or_default();
            out.extend_from_slice(part);
            (self.taken, left) = (self.taken + part.len(), left - part.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
