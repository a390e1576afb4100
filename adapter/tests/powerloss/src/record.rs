//! The record's format: a header of fixed size, then two byte strings. Written by the process,
//! read by the test.

use std::io::{self, Read};

/// What a record tells; the numbers are part of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A file or folder was opened: `fd`, `number` flags, `at` folder, `one` path.
    Open = 1,
    /// `fd` is about to be closed.
    Close = 2,
    /// `number` is `fd` once more.
    Duplicate = 3,
    /// `one` was written to `fd` at offset `number`.
    Write = 4,
    /// `fd` has now the length `number`.
    Truncate = 5,
    /// A sync of `fd` begins; `number` names it.
    SyncBegin = 6,
    /// The sync `number` has succeeded.
    SyncEnd = 7,
    /// The folder `one` below `at` was made.
    MakeFolder = 8,
    /// The entry `one` below `at` was removed.
    Remove = 9,
    /// The entry `one` below `at` has become `two` below `other`.
    Rename = 10,
    /// The process did what the recorder cannot judge, `one`, and was ended.
    Unknown = 11,
}

impl Kind {
    const ALL: [Kind; 11] = [
        Kind::Open,
        Kind::Close,
        Kind::Duplicate,
        Kind::Write,
        Kind::Truncate,
        Kind::SyncBegin,
        Kind::SyncEnd,
        Kind::MakeFolder,
        Kind::Remove,
        Kind::Rename,
        Kind::Unknown,
    ];
}

/// The fixed part of a record, in the byte order of the machine: it never leaves it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Header {
    pub(crate) kind: u32,
    /// The file that it is about.
    pub fd: i32,
    /// The folder that a relative path begins at.
    pub at: i32,
    /// The second folder of a rename.
    pub other: i32,
    /// See [`Kind`].
    pub number: u64,
    pub(crate) one: u32,
    pub(crate) two: u32,
}

const HEADER_BYTES: usize = size_of::<Header>();

impl Header {
    pub(crate) fn new(kind: Kind) -> Header {
        Header { kind: kind as u32, fd: -1, at: -1, other: -1, number: 0, one: 0, two: 0 }
    }

    pub(crate) fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let numbers = [self.kind, self.fd.cast_unsigned(), self.at.cast_unsigned()];
        let more = [self.other.cast_unsigned()];
        for (place, number) in numbers.into_iter().chain(more).enumerate() {
            bytes[place * 4..][..4].copy_from_slice(&number.to_ne_bytes());
        }
        bytes[16..24].copy_from_slice(&self.number.to_ne_bytes());
        bytes[24..28].copy_from_slice(&self.one.to_ne_bytes());
        bytes[28..].copy_from_slice(&self.two.to_ne_bytes());
        bytes
    }

    fn read(bytes: &[u8; HEADER_BYTES]) -> Header {
        let number = |at: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&bytes[at..at + 4]);
            u32::from_ne_bytes(four)
        };
        let mut eight = [0; 8];
        eight.copy_from_slice(&bytes[16..24]);
        Header {
            kind: number(0),
            fd: number(4).cast_signed(),
            at: number(8).cast_signed(),
            other: number(12).cast_signed(),
            number: u64::from_ne_bytes(eight),
            one: number(24),
            two: number(28),
        }
    }
}

/// One call of the process.
#[derive(Clone, Debug)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Its numbers.
    pub header: Header,
    /// A path, or bytes.
    pub one: Vec<u8>,
    /// The new path of a rename.
    pub two: Vec<u8>,
}

/// Reads the next record; nothing at the end, and nothing where the process was killed while it
/// wrote the last one.
pub fn next(mut log: impl Read) -> io::Result<Option<Record>> {
    let mut header = [0; HEADER_BYTES];
    if !filled(&mut log, &mut header)? {
        return Ok(None);
    }
    let header = Header::read(&header);
    let Some(kind) = Kind::ALL.into_iter().find(|kind| *kind as u32 == header.kind) else {
        return Err(io::Error::other(format!("no record is of kind {}", header.kind)));
    };
    let (mut one, mut two) = (vec![0; header.one as usize], vec![0; header.two as usize]);
    let whole = filled(&mut log, &mut one)? && filled(&mut log, &mut two)?;
    Ok(whole.then_some(Record { kind, header, one, two }))
}

fn filled(mut log: impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
