//! strace's record of a process: which bytes went where, and in which order calls began and ended.
//! Pure: text in, verdicts out.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;

const WRITES: [&str; 5] = ["write", "pwrite64", "writev", "pwritev", "pwritev2"];
const SENDS: [&str; 3] = ["sendto", "sendmsg", "sendmmsg"];
const SYNCS: [&str; 2] = ["fsync", "fdatasync"];

/// The calls to trace.
pub(super) const CALLS: [&str; 10] = [
    WRITES[0], WRITES[1], WRITES[2], WRITES[3], WRITES[4], SENDS[0], SENDS[1], SENDS[2], SYNCS[0],
    SYNCS[1],
];

/// All calls that succeeded, in the order in which they ended.
#[derive(Debug)]
pub(super) struct Trace {
    calls: Vec<Call>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Call {
    name: String,
    /// The path of a file, or both ends of a connection.
    target: String,
    data: Vec<u8>,
    /// Lines of the trace: two calls are in order when one ends before the other begins.
    begin: usize,
    end: usize,
}

impl Trace {
    /// Reads the output of `strace -f -xx -yy -o FILE`.
    pub(super) fn parse(text: &str) -> Trace {
        let mut calls = Vec::new();
        let mut unfinished: HashMap<&str, Call> = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let (thread, event) = line.split_once(' ').unwrap();
            let event = event.trim_start();
            if event.starts_with("---") || event.starts_with("+++") {
                continue;
            }
            if let Some((_, result)) = resumed(event) {
                let call = unfinished.remove(thread).unwrap();
                calls.extend(call.ended(result, number));
            } else if let Some(begun) = event.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, Call::begun(begun, number));
            } else {
                let (begun, result) = event.rsplit_once(" = ").unwrap();
                calls.extend(Call::begun(begun, number).ended(result, number));
            }
        }
        Trace { calls }
    }

    /// Whether these bytes were written to a journal, then the journal was synced, and only then
    /// the answer 204 to this client began. An error says what was not so.
    pub(super) fn synced_before_answer(
        &self,
        bytes: &[u8],
        client: SocketAddr,
    ) -> Result<(), String> {
        let (journal, written) = self.written(bytes).ok_or("the bytes were not written")?;
        let peer = format!("->{client}]");
        let answer = self
            .calls
            .iter()
            .find(|call| call.target.contains(&peer) && call.data.starts_with(b"HTTP/1.1 204"))
            .ok_or("no answer 204")?;
        let synced = self.calls.iter().any(|call| {
            SYNCS.contains(&&*call.name)
                && call.target == journal
                && call.begin > written
                && call.end < answer.begin
        });
        if synced { Ok(()) } else { Err("no sync between the write and the answer".to_owned()) }
    }

    /// Whether a journal was synced after the first bytes were written and before the last were.
    pub(super) fn synced_between(&self, first: &[u8], last: &[u8]) -> bool {
        let (journal, begin) = self.written(first).unwrap();
        let (_, end) = self.written(last).unwrap();
        let mut syncs = self.calls.iter().filter(|call| SYNCS.contains(&&*call.name));
        syncs.any(|call| call.target == journal && call.begin > begin && call.end < end)
    }

    /// The journal that these bytes went into, and when the write of their last one ended. They
    /// may be in two writes, one behind the other.
    fn written(&self, bytes: &[u8]) -> Option<(&str, usize)> {
        let mut journals: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for call in &self.calls {
            if WRITES.contains(&&*call.name) && is_journal(&call.target) {
                let journal = journals.entry(&call.target).or_default();
                let from = journal.len().saturating_sub(bytes.len());
                journal.extend_from_slice(&call.data);
                if journal[from..].windows(bytes.len()).any(|window| window == bytes) {
                    return Some((&call.target, call.end));
                }
            }
        }
        None
    }
}

impl Call {
    /// A line up to its result: `write(12</path>, "bytes", 5)`.
    fn begun(text: &str, begin: usize) -> Call {
        let (name, arguments) = text.split_once('(').unwrap();
        let (target, rest) = arguments.split_once('<').unwrap().1.split_once('>').unwrap();
        // The arrow of a connection ends no target.
        let (target, rest) = match rest.split_once(']') {
            Some((peer, rest)) if target.ends_with('-') => (format!("{target}>{peer}]"), rest),
            _ => (target.to_owned(), rest),
        };
        assert!(!rest.contains("\"..."), "a string was cut: {text}");
        // Every second piece between quotes is a string; hex strings hold no quote.
        let data = rest.split('"').skip(1).step_by(2).flat_map(unhex).collect();
        let target = String::from_utf8(unhex(&target)).unwrap();
        Call { name: name.to_owned(), target, data, begin, end: begin }
    }

    /// With its result; nothing if it failed or the process ended first. A short write has only
    /// written the begin.
    fn ended(mut self, result: &str, end: usize) -> Option<Call> {
        let result: usize = result.split(' ').next()?.parse().ok()?;
        if !SYNCS.contains(&&*self.name) {
            self.data.truncate(result);
        }
        self.end = end;
        Some(self)
    }
}

/// fjall's name for the files of its journal.
fn is_journal(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "jnl")
}

/// `<... write resumed>) = 5`
fn resumed(event: &str) -> Option<(&str, &str)> {
    let (name, rest) = event.strip_prefix("<... ")?.split_once(" resumed>")?;
    Some((name, rest.rsplit_once(" = ")?.1))
}

/// `\x41b` is `Ab`.
fn unhex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match tail.split_at_checked(3) {
            Some(([b'x', digits @ ..], after)) if *first == b'\\' => {
                let digits = std::str::from_utf8(digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
                rest = after;
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}

#[test]
fn verdicts() {
    const WRITE: &str = r#"7 write(3<\x2f\x61.jnl>, "\x01\x02\x03", 3) = 3"#;
    const SYNC: &str = r"7 fdatasync(3<\x2f\x61.jnl>) = 0";
    const ANSWER: &str = r#"8 writev(5<TCP:[1.1.1.1:9->1.1.1.1:8]>, [{iov_base="HTTP/1.1 204", iov_len=12}], 1) = 12"#;
    let begun = |line: &str| line.rsplit_once(" = ").unwrap().0.to_owned() + " <unfinished ...>";
    let too_late = Err("no sync between the write and the answer");
    for (lines, expected) in [
        (vec![WRITE, SYNC, ANSWER], Ok(())),
        (vec![SYNC, WRITE, ANSWER], too_late),
        (vec![WRITE, ANSWER, SYNC], too_late),
        (vec![WRITE, ANSWER], too_late),
        (vec![WRITE, &begun(SYNC), "7 <... fdatasync resumed>) = 0", ANSWER], Ok(())),
        (vec![WRITE, &begun(SYNC), ANSWER, "7 <... fdatasync resumed>) = 0"], too_late),
        (
            vec![&begun(WRITE), &SYNC.replace('7', "9"), "7 <... write resumed>) = 3", ANSWER],
            too_late,
        ),
        (vec![WRITE, &SYNC.replace("= 0", "= -1 EIO (Input/output error)"), ANSWER], too_late),
        (vec![WRITE, &SYNC.replace(r"\x61", r"\x62"), ANSWER], too_late),
        (vec![&WRITE.replace("= 3", "= 2"), SYNC, ANSWER], Err("the bytes were not written")),
        (vec![WRITE, SYNC], Err("no answer 204")),
        (vec![WRITE, SYNC, "7 --- SIGTERM {si_signo=SIGTERM} ---", ANSWER], Ok(())),
        (
            vec![
                r#"7 write(3<\x2f\x61.jnl>, "\x01\x02", 2) = 2"#,
                r#"7 write(3<\x2f\x61.jnl>, "\x03", 1) = 1"#,
                SYNC,
                ANSWER,
            ],
            Ok(()),
        ),
    ] {
        let trace = Trace::parse(&lines.join("\n"));
        let verdict = trace.synced_before_answer(&[1, 2, 3], "1.1.1.1:8".parse().unwrap());
        assert_eq!(verdict, expected.map_err(str::to_owned), "{lines:#?}");
    }
}
