//! A folder as a disk could have it after a power loss: from what a process did to it (the record
//! of the `powerloss` library) and a seeded die. The model is POSIX at its strictest: a file's
//! content is there once it was synced, a name once its folder was synced, and nothing else is
//! sure. Unsynced bytes are lost, kept, cut anywhere, or kept in some pages and zeros or old bytes
//! in others; unsynced names are changed, not changed, or changed in any selection.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use powerloss::record::{self, Kind, Record};

use super::dice::Dice;

const PAGE: usize = 4096;

type Name = Vec<u8>;
/// Place of an [`Inode`].
type Id = usize;

/// Everything below one folder: what is synced, and what was done since.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
    open: HashMap<i32, Id>,
    /// Syncs under way: what they sync, and how many of its changes they cover.
    syncs: HashMap<u64, (Id, usize)>,
}

#[derive(Debug)]
enum Inode {
    File(Changed<Content, Edit>),
    Folder(Changed<Names, Vec<(Name, Option<Id>)>>),
}

type Names = BTreeMap<Name, Id>;

/// What is synced, and the changes since, of which the first are number `done`.
#[derive(Debug)]
struct Changed<T, C> {
    synced: T,
    done: usize,
    since: Vec<C>,
}

/// A file's bytes; behind those that are held are zeros up to the length.
#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    len: usize,
}

#[derive(Clone, Debug)]
enum Edit {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Content {
    fn read(path: &Path) -> Content {
        let mut bytes = fs::read(path).unwrap();
        let len = bytes.len();
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        Content { bytes, len }
    }

    fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::Write(place, bytes) => {
                let end = place + bytes.len();
                if self.bytes.len() < end {
                    self.bytes.resize(end, 0);
                }
                self.bytes[*place..end].copy_from_slice(bytes);
                self.len = self.len.max(end);
            }
            Edit::Truncate(len) => {
                self.bytes.truncate(*len);
                self.len = *len;
            }
        }
    }

    fn page(&self, page: usize) -> Vec<u8> {
        let mut bytes = vec![0; PAGE];
        let held = self.bytes.get(page * PAGE..).unwrap_or_default();
        let held = &held[..held.len().min(PAGE)];
        bytes[..held.len()].copy_from_slice(held);
        bytes
    }

    fn write(&self, path: &Path) {
        let mut file = fs::File::create_new(path).unwrap();
        for (place, page) in self.bytes.chunks(PAGE).enumerate() {
            // Holes stay holes: a journal is mostly zeros.
            if page.iter().any(|byte| *byte != 0) {
                file.seek(SeekFrom::Start((place * PAGE) as u64)).unwrap();
                file.write_all(page).unwrap();
            }
        }
        file.set_len(self.len as u64).unwrap();
    }
}

impl Disk {
    /// A folder that was on disk for long.
    pub(super) fn of(root: &Path) -> Disk {
        let mut disk = Disk {
            root: root.to_owned(),
            inodes: Vec::new(),
            open: HashMap::new(),
            syncs: HashMap::new(),
        };
        disk.add(root);
        disk
    }

    fn add(&mut self, path: &Path) -> Id {
        let id = self.inodes.len();
        if path.is_dir() {
            self.inodes.push(Inode::Folder(Changed::nothing()));
            for entry in fs::read_dir(path).unwrap() {
                let entry = entry.unwrap();
                let child = self.add(&entry.path());
                self.names(id).synced.insert(entry.file_name().into_vec(), child);
            }
        } else {
            let synced = Content::read(path);
            self.inodes.push(Inode::File(Changed { synced, done: 0, since: Vec::new() }));
        }
        id
    }

    /// Does what a process did.
    pub(super) fn replay(&mut self, log: &Path) {
        let mut log = BufReader::new(fs::File::open(log).unwrap());
        while let Some(record) = record::next(&mut log).unwrap() {
            self.step(record);
        }
    }

    fn step(&mut self, record: Record) {
        let Record { kind, header, one, two } = record;
        match kind {
            Kind::Open => {
                let id = self.opened(header.at, &one, header.number);
                self.open.insert(header.fd, id);
            }
            Kind::Close => {
                self.open.remove(&header.fd).expect("closed after it was opened");
            }
            Kind::Duplicate => {
                let id = self.open[&header.fd];
                self.open.insert(i32::try_from(header.number).unwrap(), id);
            }
            Kind::Write => {
                let place = usize::try_from(header.number).unwrap();
                self.file(header.fd).since.push(Edit::Write(place, one));
            }
            Kind::Truncate => {
                let len = usize::try_from(header.number).unwrap();
                self.file(header.fd).since.push(Edit::Truncate(len));
            }
            Kind::SyncBegin => {
                let id = self.open[&header.fd];
                let covered = match &self.inodes[id] {
                    Inode::File(file) => file.done + file.since.len(),
                    Inode::Folder(folder) => folder.done + folder.since.len(),
                };
                self.syncs.insert(header.number, (id, covered));
            }
            Kind::SyncEnd => self.synced(header.number),
            Kind::MakeFolder => {
                let id = self.inodes.len();
                self.inodes.push(Inode::Folder(Changed::nothing()));
                let (folder, name) = self.place(header.at, &one);
                self.names(folder).since.push(vec![(name, Some(id))]);
            }
            Kind::Remove => {
                let (folder, name) = self.place(header.at, &one);
                self.names(folder).since.push(vec![(name, None)]);
            }
            Kind::Rename => {
                let (from, old) = self.place(header.at, &one);
                let (to, new) = self.place(header.other, &two);
                assert_eq!(from, to, "a rename between two folders is not modelled");
                let id = self.now(from)[&old];
                self.names(from).since.push(vec![(new, Some(id)), (old, None)]);
            }
            Kind::Unknown => panic!("the process did {}", String::from_utf8_lossy(&one)),
        }
    }

    fn synced(&mut self, sync: u64) {
        let (id, covered) = self.syncs.remove(&sync).expect("ended after it began");
        match &mut self.inodes[id] {
            Inode::File(file) => {
                for edit in file.take(covered) {
                    file.synced.apply(&edit);
                }
            }
            Inode::Folder(folder) => {
                for change in folder.take(covered) {
                    apply(&mut folder.synced, &change);
                }
            }
        }
    }

    fn opened(&mut self, at: i32, path: &[u8], flags: u64) -> Id {
        let flags = u32::try_from(flags).unwrap();
        let set = |flag: u32| flags & flag == flag;
        if self.relative(at, path).as_os_str().is_empty() {
            return if path.starts_with(b"/") { 0 } else { self.open[&at] };
        }
        let (folder, name) = self.place(at, path);
        if let Some(id) = self.now(folder).get(&name).copied() {
            if set(O_TRUNC)
                && let Inode::File(file) = &mut self.inodes[id]
            {
                file.since.push(Edit::Truncate(0));
            }
            return id;
        }
        assert!(set(O_CREAT), "{} was never made", self.relative(at, path).display());
        let id = self.inodes.len();
        self.inodes.push(Inode::File(Changed::nothing()));
        self.names(folder).since.push(vec![(name, Some(id))]);
        id
    }

    /// The folder of a path, and the last name of it.
    fn place(&self, at: i32, path: &[u8]) -> (Id, Name) {
        let relative = self.relative(at, path);
        let mut folder = if path.starts_with(b"/") { 0 } else { self.open[&at] };
        for name in relative.parent().unwrap() {
            folder = self.now(folder)[name.as_bytes()];
        }
        (folder, relative.file_name().unwrap().as_bytes().to_owned())
    }

    fn relative(&self, _at: i32, path: &[u8]) -> PathBuf {
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        // Without its last slash, and without "." in the middle.
        let path: PathBuf = path.components().collect();
        path.strip_prefix(&self.root).map_or(path.clone(), Path::to_owned)
    }

    fn file(&mut self, fd: i32) -> &mut Changed<Content, Edit> {
        match &mut self.inodes[self.open[&fd]] {
            Inode::File(file) => file,
            Inode::Folder(_) => panic!("a folder was written to"),
        }
    }

    fn names(&mut self, id: Id) -> &mut Changed<Names, Vec<(Name, Option<Id>)>> {
        match &mut self.inodes[id] {
            Inode::Folder(folder) => folder,
            Inode::File(_) => panic!("a file was used as a folder"),
        }
    }

    /// The names that the process sees in a folder.
    fn now(&self, id: Id) -> Names {
        let Inode::Folder(folder) = &self.inodes[id] else { panic!("a file is no folder") };
        let mut names = folder.synced.clone();
        folder.since.iter().for_each(|change| apply(&mut names, change));
        names
    }

    /// What the process sees, to check the model itself.
    pub(super) fn check_now(&self) {
        self.check_folder(0, &self.root);
    }

    fn check_folder(&self, id: Id, path: &Path) {
        let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name());
        let found: BTreeSet<Name> = entries.map(OsStringExt::into_vec).collect();
        let names = self.now(id);
        assert_eq!(found, names.keys().cloned().collect(), "{}", path.display());
        for (name, child) in names {
            let path = path.join(std::ffi::OsStr::from_bytes(&name));
            match &self.inodes[child] {
                Inode::Folder(_) => self.check_folder(child, &path),
                Inode::File(file) => {
                    let mut content = file.synced.clone();
                    file.since.iter().for_each(|edit| content.apply(edit));
                    let found = Content::read(&path);
                    let held = content.bytes.iter().rposition(|byte| *byte != 0);
                    content.bytes.truncate(held.map_or(0, |last| last + 1));
                    assert!(
                        (content.len, &content.bytes) == (found.len, &found.bytes),
                        "{} has {} bytes, not {}, or others",
                        path.display(),
                        found.len,
                        content.len
                    );
                }
            }
        }
    }

    /// Writes what the disk may hold after a power loss now to a folder that is empty.
    pub(super) fn lose_power(&self, dice: &mut Dice, folder: &Path) {
        let mood = dice.pick(&[Mood::Lost, Mood::Kept, Mood::Each, Mood::Each, Mood::Each]);
        self.write(0, folder, (mood, dice));
    }

    fn write(&self, id: Id, path: &Path, (mood, dice): (Mood, &mut Dice)) {
        match &self.inodes[id] {
            Inode::File(file) => file.after_loss(mood, dice).write(path),
            Inode::Folder(folder) => {
                if id != 0 {
                    fs::create_dir(path).unwrap();
                }
                for (name, child) in folder.after_loss(mood, dice) {
                    let path = path.join(std::ffi::OsStr::from_bytes(&name));
                    self.write(child, &path, (mood, dice));
                }
            }
        }
    }
}

// As the kernel of this machine numbers them.
const O_CREAT: u32 = 0o100;
const O_TRUNC: u32 = 0o1000;

/// What happens to unsynced things.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Lost,
    Kept,
    /// To each something else.
    Each,
}

/// What happens to the unsynced changes of one file or folder.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Kept,
    /// The first ones stay.
    Cut,
    /// Any of them stay.
    Selected,
}

fn fate(mood: Mood, dice: &mut Dice) -> Fate {
    match mood {
        Mood::Lost => Fate::Lost,
        Mood::Kept => Fate::Kept,
        Mood::Each => {
            dice.pick(&[Fate::Lost, Fate::Kept, Fate::Cut, Fate::Selected, Fate::Selected])
        }
    }
}

fn apply(names: &mut Names, change: &[(Name, Option<Id>)]) {
    for (name, id) in change {
        match id {
            Some(id) => names.insert(name.clone(), *id),
            None => names.remove(name),
        };
    }
}

impl<T: Default, C> Changed<T, C> {
    fn nothing() -> Changed<T, C> {
        Changed { synced: T::default(), done: 0, since: Vec::new() }
    }
}

impl<T, C> Changed<T, C> {
    /// The first changes, which are synced now.
    fn take(&mut self, covered: usize) -> Vec<C> {
        let count = covered.saturating_sub(self.done);
        self.done += count;
        self.since.drain(..count).collect()
    }
}

impl Changed<Names, Vec<(Name, Option<Id>)>> {
    fn after_loss(&self, mood: Mood, dice: &mut Dice) -> Names {
        let mut names = self.synced.clone();
        let count = self.since.len();
        let fate = fate(mood, dice);
        let cut = dice.below(count as u64 + 1) as usize;
        for (place, change) in self.since.iter().enumerate() {
            let stays = match fate {
                Fate::Lost => false,
                Fate::Kept => true,
                Fate::Cut => place < cut,
                Fate::Selected => dice.below(2) == 0,
            };
            if stays {
                apply(&mut names, change);
            }
        }
        names
    }
}

impl Changed<Content, Edit> {
    fn after_loss(&self, mood: Mood, dice: &mut Dice) -> Content {
        let mut content = self.synced.clone();
        let fate = fate(mood, dice);
        let count = match fate {
            Fate::Lost => 0,
            Fate::Kept => self.since.len(),
            Fate::Cut | Fate::Selected => dice.below(self.since.len() as u64 + 1) as usize,
        };
        let (whole, rest) = self.since.split_at(count);
        for edit in whole {
            content.apply(edit);
        }
        match fate {
            Fate::Cut => {
                if let Some(Edit::Write(place, bytes)) = rest.first() {
                    let cut = dice.below(bytes.len() as u64) as usize;
                    content.apply(&Edit::Write(*place, bytes[..cut].to_vec()));
                }
            }
            Fate::Selected => self.lose_pages(whole, &mut content, dice),
            Fate::Lost | Fate::Kept => {}
        }
        content
    }

    /// Pages reach the disk in any order, and the length may be ahead of them or behind.
    fn lose_pages(&self, edits: &[Edit], content: &mut Content, dice: &mut Dice) {
        let mut pages = BTreeSet::new();
        for edit in edits {
            if let Edit::Write(place, bytes) = edit {
                pages.extend(place / PAGE..(place + bytes.len()).div_ceil(PAGE));
            }
        }
        let (len, odds) = (content.len, dice.pick(&[2, 2, 4, 20]));
        for page in pages {
            if dice.below(odds) == 0 {
                let old = self.synced.page(page);
                content.apply(&Edit::Write(page * PAGE, old));
            }
        }
        content.apply(&Edit::Truncate(len));
        if len > self.synced.len && dice.below(4) == 0 {
            content.apply(&Edit::Truncate(self.synced.len));
        }
    }
}
