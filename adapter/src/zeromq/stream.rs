//! What a peer sends, followed frame by frame in all versions of ZMTP that libzmq takes, so that
//! one message stays within bounds. libzmq bounds a frame, and counts messages only when they are
//! whole: one that never ends would grow in its memory for ever. Pure: bytes in whatever cuts.

use std::fmt;

/// What one message may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Frames.
    pub frames: usize,
    /// Bytes of all its frames together, without their headers.
    pub bytes: usize,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A message has more frames than this.
    Frames(usize),
    /// A message has or announces more bytes than this.
    Bytes(usize),
    /// A frame that no peer sends: of no length in ZMTP 1.0, or a command that goes on in another
    /// frame.
    NoZeromq,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Frames(most) => write!(out, "a message of more than {most} frames"),
            Fault::Bytes(most) => write!(out, "a message of more than {most} bytes"),
            Fault::NoZeromq => out.write_str("bytes that are no ZeroMQ"),
        }
    }
}

/// Where a slice is to be cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Bytes of the slice that came before the fault was known.
    pub at: usize,
    /// Why.
    pub fault: Fault,
}

/// The stream of one peer.
#[derive(Clone, Debug)]
pub struct Stream {
    bounds: Bounds,
    awaited: Awaited,
    framing: Framing,
    message: Message,
}

/// How frames begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// ZMTP 1.0: a length, of one byte or of 255 and eight more, which counts the flags behind it.
    LengthFirst,
    /// Since ZMTP 2.0: flags, and a length of one or eight bytes.
    FlagsFirst,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The first one of all.
    First,
    /// Within the ten bytes that are a signature, or the header of a long frame of ZMTP 1.0.
    Signature { read: usize, length: u64 },
    /// The peer's version.
    Revision,
    /// The rest of its greeting.
    Greeting { left: usize },
    /// The first one of a frame.
    Frame,
    /// A length of one byte, behind flags.
    Length { flags: u8 },
    /// A length of eight bytes, behind flags where they come first.
    LongLength { left: usize, length: u64, flags: Option<u8> },
    /// The flags behind a length.
    Flags { length: u64 },
    /// What is in a frame.
    Content { left: u64 },
}

/// What there is of the message that is under way.
#[derive(Clone, Copy, Debug, Default)]
struct Message {
    frames: usize,
    bytes: u64,
}

/// Bytes of a signature: 255, a length and flags.
const SIGNATURE_BYTES: usize = 10;
/// Bytes behind the revision of a greeting of ZMTP 2.0, which libzmq takes of revision 0 as well.
const GREETING_2_LEFT: usize = 1;
/// The same of ZMTP 3, and of all that libzmq takes for it: every revision above 1.
const GREETING_3_LEFT: usize = 53;
/// Says in one byte that eight bytes of length follow (ZMTP 1.0).
const LONG: u8 = 0xFF;
const MORE_FLAG: u8 = 1;
const LONG_FLAG: u8 = 2;
const COMMAND_FLAG: u8 = 4;

impl Stream {
    /// Of a peer that has said nothing yet.
    pub fn new(bounds: Bounds) -> Stream {
        let (awaited, message) = (Awaited::First, Message::default());
        Stream { bounds, awaited, framing: Framing::LengthFirst, message }
    }

    /// Follows the next bytes. After a fault the stream is of no use any more.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(), Cut> {
        let mut rest = bytes;
        loop {
            if let Awaited::Content { left } = self.awaited {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                rest = rest.split_at(here).1;
                let left = left - here as u64;
                self.awaited = if left == 0 { Awaited::Frame } else { Awaited::Content { left } };
                if left > 0 {
                    return Ok(());
                }
            }
            let Some((&byte, behind)) = rest.split_first() else { return Ok(()) };
            let at = bytes.len() - rest.len();
            self.awaited = self.next(byte).map_err(|fault| Cut { at, fault })?;
            rest = behind;
        }
    }

    /// What comes after this byte, which is in no content.
    fn next(&mut self, byte: u8) -> Result<Awaited, Fault> {
        Ok(match self.awaited {
            Awaited::First if byte == LONG => Awaited::Signature { read: 1, length: 0 },
            // A peer of ZMTP 1.0 greets with a frame, its name.
            Awaited::First | Awaited::Frame => self.begin(byte),
            Awaited::Signature { read, length } if read + 1 < SIGNATURE_BYTES => {
                Awaited::Signature { read: read + 1, length: length << 8 | u64::from(byte) }
            }
            Awaited::Signature { .. } if byte & MORE_FLAG != 0 => Awaited::Revision,
            // No signature after all: this byte is a frame's flags.
            Awaited::Signature { length, .. } | Awaited::Flags { length } => {
                self.counted(length, byte)?
            }
            Awaited::Revision => {
                self.framing = if byte == 0 { Framing::LengthFirst } else { Framing::FlagsFirst };
                let left = if byte <= 1 { GREETING_2_LEFT } else { GREETING_3_LEFT };
                Awaited::Greeting { left }
            }
            Awaited::Greeting { left: ..=1 } => Awaited::Frame,
            Awaited::Greeting { left } => Awaited::Greeting { left: left - 1 },
            Awaited::Length { flags } => self.content(u64::from(byte), flags)?,
            Awaited::LongLength { left, length, flags } => {
                let length = length << 8 | u64::from(byte);
                match (left, flags) {
                    (..=1, None) => Awaited::Flags { length },
                    (..=1, Some(flags)) => self.content(length, flags)?,
                    _ => Awaited::LongLength { left: left - 1, length, flags },
                }
            }
            Awaited::Content { left } => Awaited::Content { left },
        })
    }

    /// The first byte of a frame.
    fn begin(&self, byte: u8) -> Awaited {
        let long = |flags| Awaited::LongLength { left: size_of::<u64>(), length: 0, flags };
        match self.framing {
            Framing::LengthFirst if byte == LONG => long(None),
            Framing::LengthFirst => Awaited::Flags { length: u64::from(byte) },
            Framing::FlagsFirst if byte & LONG_FLAG != 0 => long(Some(byte)),
            Framing::FlagsFirst => Awaited::Length { flags: byte },
        }
    }

    /// The content of a frame of ZMTP 1.0, whose length counts its flags; of these it knows one.
    fn counted(&mut self, length: u64, flags: u8) -> Result<Awaited, Fault> {
        let length = length.checked_sub(1).ok_or(Fault::NoZeromq)?;
        self.content(length, flags & MORE_FLAG)
    }

    /// The content of a frame, judged before any of it comes.
    fn content(&mut self, length: u64, flags: u8) -> Result<Awaited, Fault> {
        let more = flags & MORE_FLAG != 0;
        let most = self.bounds.bytes as u64;
        if flags & COMMAND_FLAG != 0 {
            // It is no part of a message, but may come between its frames, as a heartbeat does.
            return match more {
                true => Err(Fault::NoZeromq),
                false if length > most => Err(Fault::Bytes(self.bounds.bytes)),
                false => Ok(Awaited::Content { left: length }),
            };
        }
        self.message.frames += 1;
        self.message.bytes = self.message.bytes.saturating_add(length);
        if self.message.bytes > most {
            return Err(Fault::Bytes(self.bounds.bytes));
        }
        if self.message.frames > self.bounds.frames {
            return Err(Fault::Frames(self.bounds.frames));
        }
        if !more {
            self.message = Message::default();
        }
        Ok(Awaited::Content { left: length })
    }
}

#[cfg(test)]
mod tests;
