//! A set of password hashes as a file of binary fuse filters: about 2.3 bytes an entry, and one password in 65,536
//! that is not in it is taken for one that is (2^-16). The file is cut into shards by the hash's leading bits, so that
//! building holds one shard in memory and a look reads one.
//!
//! ```text
//! "PGBREACH" version(1) kind(1) shard_bits(1) complete(1) pad(4) entries(8) next_shard(4) input(4) offset(8) inputs(8)
//! table: for each shard offset(8) length(4)
//! shards: seed(8) segment_length(4) segment_count_length(4) fingerprints(2 each) checksum(8)
//! ```
//! Numbers are little-endian. What stands after `entries` says where a build goes on after it was interrupted.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use foundation::kernel::sha256;
use xorf::{BinaryFuse16, Filter as _};

const MAGIC: &[u8; 8] = b"PGBREACH";
const VERSION: u8 = 1;
const HEADER: usize = 48;
const ENTRY: usize = 12;
const SHARD_HEAD: usize = 16;
const CHECKSUM: usize = 8;
/// Entries that one shard should have: 600 KB on disk, 10 MB while it is built.
const SHARD_ENTRIES: u64 = 1 << 18;
const MAX_SHARD_BITS: u8 = 16;
/// Two bytes for each of at most this many fingerprints: more is not one of our shards.
const MAX_SHARD: u32 = 1 << 26;

/// Which hash of a password the entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashKind {
    /// SHA-1 of its UTF-8.
    Sha1,
    /// NTLM: MD4 of its UTF-16.
    Ntlm,
}

impl HashKind {
    const fn number(self) -> u8 {
        match self {
            Self::Sha1 => 1,
            Self::Ntlm => 2,
        }
    }

    fn of(number: u8) -> Option<Self> {
        [Self::Sha1, Self::Ntlm].into_iter().find(|kind| kind.number() == number)
    }

    /// Hexadecimal digits of such a hash.
    pub const fn digits(self) -> usize {
        match self {
            Self::Sha1 => 40,
            Self::Ntlm => 32,
        }
    }
}

/// Where a build goes on: the input's number, the position in it, and the length of all inputs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Which of the inputs.
    pub input: u32,
    /// Bytes of it that are done.
    pub offset: u64,
    /// Bytes of all inputs: another set of files is another build.
    pub inputs: u64,
}

#[derive(Debug, Clone, Copy)]
struct Header {
    kind: HashKind,
    shard_bits: u8,
    complete: bool,
    entries: u64,
    next_shard: u32,
    place: Place,
}

impl Header {
    fn write(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        let flags = [VERSION, self.kind.number(), self.shard_bits, u8::from(self.complete), 0, 0, 0, 0];
        let parts: [&[u8]; 7] = [
            MAGIC,
            &flags,
            &self.entries.to_le_bytes(),
            &self.next_shard.to_le_bytes(),
            &self.place.input.to_le_bytes(),
            &self.place.offset.to_le_bytes(),
            &self.place.inputs.to_le_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(parts.into_iter().flatten()) {
            *to = *from;
        }
        out
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = Cursor(bytes);
        let (magic, [version, kind, shard_bits, complete, ..]) = (rest.take::<8>()?, rest.take::<8>()?);
        if magic != *MAGIC || version != VERSION || shard_bits > MAX_SHARD_BITS {
            return None;
        }
        Some(Self {
            kind: HashKind::of(kind)?,
            shard_bits,
            complete: complete == 1,
            entries: rest.u64()?,
            next_shard: rest.u32()?,
            place: Place { input: rest.u32()?, offset: rest.u64()?, inputs: rest.u64()? },
        })
    }

    fn shards(&self) -> u32 {
        1 << self.shard_bits
    }

    fn shard_of(&self, key: u64) -> u32 {
        u32::try_from(key.checked_shr(64 - u32::from(self.shard_bits)).unwrap_or(0)).unwrap_or(0)
    }
}

struct Cursor<'b>(&'b [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}

/// The first 16 hexadecimal digits of a hash as the number that the filters know it by.
pub fn key_of(hex: &[u8]) -> Option<u64> {
    hex.get(..16)?.iter().try_fold(0u64, |key, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'A'..=b'F' => digit - b'A' + 10,
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(key << 4 | u64::from(value))
    })
}

fn damaged() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "it is not a finished filter of this program, or it is damaged",
    )
}

/// A filter that is asked.
#[derive(Debug)]
pub struct Filter {
    header: Header,
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(File),
    /// One shard, in memory.
    Memory(BinaryFuse16),
}

impl Filter {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read or is not a finished filter.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut head = [0; HEADER];
        file.read_exact_at(&mut head, 0).map_err(|_| damaged())?;
        let header = Header::read(&head).filter(|header| header.complete).ok_or_else(damaged)?;
        Ok(Self { header, source: Source::File(file) })
    }

    /// Reads a filter of one shard that is compiled into the program.
    pub fn built_in(bytes: &[u8]) -> Option<Self> {
        let header = Header::read(bytes).filter(|header| header.complete && header.shard_bits == 0)?;
        let shard = bytes.get(HEADER + ENTRY..)?;
        Some(Self { header, source: Source::Memory(read_shard(shard)?) })
    }

    /// How many passwords went into it.
    pub fn entries(&self) -> u64 {
        self.header.entries
    }

    /// Which hash it was made of.
    pub fn kind(&self) -> HashKind {
        self.header.kind
    }

    /// Whether the password with this key is (probably) in it.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub fn contains(&self, key: u64) -> io::Result<bool> {
        let file = match &self.source {
            Source::Memory(filter) => return Ok(filter.contains(&key)),
            Source::File(file) => file,
        };
        let (offset, length) = table_entry(file, self.header.shard_of(key))?;
        if length == 0 {
            return Ok(false);
        }
        let mut bytes = vec![0; usize::try_from(length.min(MAX_SHARD * 2)).unwrap_or(0)];
        file.read_exact_at(&mut bytes, offset).map_err(|_| damaged())?;
        Ok(read_shard(&bytes).ok_or_else(damaged)?.contains(&key))
    }
}

fn table_entry(file: &File, shard: u32) -> io::Result<(u64, u32)> {
    let mut entry = [0; ENTRY];
    file.read_exact_at(&mut entry, HEADER as u64 + u64::from(shard) * ENTRY as u64).map_err(|_| damaged())?;
    let mut entry = Cursor(&entry);
    Ok((entry.u64().unwrap_or(0), entry.u32().unwrap_or(0)))
}

fn read_shard(bytes: &[u8]) -> Option<BinaryFuse16> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if sha256(body).truncated::<CHECKSUM>() != *checksum {
        return None;
    }
    let mut head = Cursor(body);
    let (seed, segment_length, segment_count_length) = (head.u64()?, head.u32()?, head.u32()?);
    let fingerprints: Box<[u16]> = body
        .get(SHARD_HEAD..)?
        .chunks_exact(2)
        .filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)))
        .collect();
    // What the filter's own arithmetic takes for granted.
    let whole = u64::from(segment_count_length) + 2 * u64::from(segment_length);
    if !segment_length.is_power_of_two()
        || segment_count_length < segment_length
        || !segment_count_length.is_multiple_of(segment_length)
        || whole != fingerprints.len() as u64
    {
        return None;
    }
    // The type of the descriptor has no public name, so an empty filter is filled.
    let mut filter = BinaryFuse16::try_from(&[][..]).ok()?;
    filter.descriptor.seed = seed;
    filter.descriptor.segment_length = segment_length;
    filter.descriptor.segment_length_mask = segment_length - 1;
    filter.descriptor.segment_count_length = segment_count_length;
    filter.fingerprints = fingerprints;
    Some(filter)
}

fn write_shard(keys: &[u64]) -> Result<Vec<u8>, &'static str> {
    let filter = BinaryFuse16::try_from(keys)?;
    let d = &filter.descriptor;
    let mut out = Vec::with_capacity(SHARD_HEAD + filter.fingerprints.len() * 2 + CHECKSUM);
    out.extend_from_slice(&d.seed.to_le_bytes());
    out.extend_from_slice(&d.segment_length.to_le_bytes());
    out.extend_from_slice(&d.segment_count_length.to_le_bytes());
    for fingerprint in &filter.fingerprints {
        out.extend_from_slice(&fingerprint.to_le_bytes());
    }
    let checksum = sha256(&out).truncated::<CHECKSUM>();
    out.extend_from_slice(&checksum);
    Ok(out)
}

/// Builds a filter from keys in ascending order, one shard at a time; what is done survives an interruption.
pub struct Builder {
    file: File,
    partial: PathBuf,
    target: PathBuf,
    header: Header,
    end: u64,
    shard: u32,
    keys: Vec<u64>,
    last: Option<u64>,
}

impl Builder {
    /// Starts, or goes on where an interrupted build of the same inputs into the same file stopped; `expected`
    /// entries decide the number of shards.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn start(target: &Path, kind: HashKind, expected: u64, inputs: u64) -> io::Result<Self> {
        let mut partial = target.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&partial)?;
        let wanted = (expected / SHARD_ENTRIES).max(1).next_power_of_two();
        let shard_bits = u8::try_from(wanted.trailing_zeros()).unwrap_or(MAX_SHARD_BITS).min(MAX_SHARD_BITS);
        let mut head = [0; HEADER];
        let before = file.read_exact_at(&mut head, 0).ok().and_then(|()| Header::read(&head));
        let fresh = Header {
            kind,
            shard_bits,
            complete: false,
            entries: 0,
            next_shard: 0,
            place: Place { inputs, ..Place::default() },
        };
        let header = before
            .filter(|old| (old.kind, old.shard_bits, old.place.inputs) == (kind, shard_bits, inputs))
            .unwrap_or(fresh);
        let table = HEADER as u64 + u64::from(header.shards()) * ENTRY as u64;
        let mut end = table;
        for shard in 0..header.next_shard {
            let (offset, length) = table_entry(&file, shard)?;
            end = end.max(offset.checked_add(u64::from(length)).ok_or_else(damaged)?);
        }
        if header.next_shard == 0 {
            file.set_len(0)?;
            file.set_len(table)?;
            file.write_all_at(&header.write(), 0)?;
        }
        let shard = header.next_shard;
        Ok(Self {
            file,
            partial,
            target: target.to_owned(),
            header,
            end,
            shard,
            keys: Vec::new(),
            last: None,
        })
    }

    /// Where in the inputs to go on reading.
    pub fn place(&self) -> Place {
        self.header.place
    }

    /// Entries that are in finished shards.
    pub fn entries(&self) -> u64 {
        self.header.entries
    }

    /// Shards in all.
    pub fn shards(&self) -> u32 {
        self.header.shards()
    }

    /// Takes the next key, which stands at `place` of the inputs. A key that was there just before counts once.
    ///
    /// # Errors
    /// When keys are not in ascending order, or the file cannot be written.
    pub fn push(&mut self, key: u64, place: Place) -> io::Result<()> {
        match self.last {
            Some(last) if key == last => return Ok(()),
            Some(last) if key < last => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "the hashes are not in ascending order",
                ));
            }
            _ => self.last = Some(key),
        }
        let shard = self.header.shard_of(key);
        if shard < self.shard {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the hashes are not in ascending order"));
        }
        if shard > self.shard {
            self.close_shard(shard, place)?;
        }
        self.keys.push(key);
        Ok(())
    }

    fn close_shard(&mut self, next: u32, place: Place) -> io::Result<()> {
        if !self.keys.is_empty() {
            let bytes = write_shard(&self.keys).map_err(io::Error::other)?;
            self.file.write_all_at(&bytes, self.end)?;
            let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
            let mut entry = self.end.to_le_bytes().to_vec();
            entry.extend_from_slice(&length.to_le_bytes());
            self.file.write_all_at(&entry, HEADER as u64 + u64::from(self.shard) * ENTRY as u64)?;
            self.end += u64::from(length);
            self.header.entries += self.keys.len() as u64;
            self.keys.clear();
        }
        (self.header.next_shard, self.header.place) = (next, place);
        // The data before what says that it is there.
        self.file.sync_data()?;
        self.file.write_all_at(&self.header.write(), 0)?;
        self.shard = next;
        Ok(())
    }

    /// Finishes the file and puts it in place of an older one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<u64> {
        let place = self.header.place;
        self.close_shard(self.header.shards(), place)?;
        self.header.complete = true;
        self.file.write_all_at(&self.header.write(), 0)?;
        self.file.set_len(self.end)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.flush()?;
        self.file.sync_all()?;
        std::fs::rename(&self.partial, &self.target)?;
        Ok(self.header.entries)
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Builder({}, shard {} of {})", self.target.display(), self.shard, self.shards())
    }
}

#[cfg(test)]
mod tests {
    use foundation::kernel::Entropy;

    use super::*;

    fn keys(count: usize) -> Vec<u64> {
        let chance = Entropy::seeded(b"filter");
        let mut keys: Vec<u64> = (0..count).map(|_| u64::from_be_bytes(chance.bytes())).collect();
        keys.sort_unstable();
        keys
    }

    fn at(index: usize) -> Place {
        Place { input: 0, offset: index as u64, inputs: 9 }
    }

    #[test]
    fn what_went_in_is_found_and_what_did_not_hardly_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        // So many expected that there are 16 shards of few.
        let mut builder = Builder::start(&path, HashKind::Sha1, 1 << 22, 9).unwrap();
        let keys = keys(10_000);
        for (index, key) in keys.iter().enumerate() {
            builder.push(*key, at(index)).unwrap();
            builder.push(*key, at(index)).unwrap();
        }
        assert_eq!((builder.shards(), builder.finish().unwrap()), (16, 10_000));
        let filter = Filter::open(&path).unwrap();
        assert_eq!((filter.entries(), filter.kind()), (10_000, HashKind::Sha1));
        assert!(keys.iter().all(|key| filter.contains(*key).unwrap()));
        let others = Entropy::seeded(b"others");
        let wrong =
            (0..20_000).filter(|_| filter.contains(u64::from_be_bytes(others.bytes())).unwrap()).count();
        assert!(wrong < 8, "{wrong} of 20,000; one in 65,536 is what it should be");
        assert!(!dir.path().join("f.partial").exists());
    }

    #[test]
    fn an_interrupted_build_goes_on_where_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let keys = keys(5_000);
        let whole = dir.path().join("whole");
        let mut builder = Builder::start(&whole, HashKind::Ntlm, 1 << 21, 9).unwrap();
        keys.iter().enumerate().for_each(|(index, key)| builder.push(*key, at(index)).unwrap());
        builder.finish().unwrap();

        let path = dir.path().join("f");
        let mut builder = Builder::start(&path, HashKind::Ntlm, 1 << 21, 9).unwrap();
        keys.iter().take(3_000).enumerate().for_each(|(index, key)| builder.push(*key, at(index)).unwrap());
        drop(builder);
        assert!(
            Filter::open(&dir.path().join("f.partial")).is_err(),
            "a filter that is not finished is none"
        );
        let mut builder = Builder::start(&path, HashKind::Ntlm, 1 << 21, 9).unwrap();
        let done = usize::try_from(builder.place().offset).unwrap();
        assert!((2_000..3_000).contains(&done) && builder.entries() == done as u64, "{done}");
        keys.iter().enumerate().skip(done).for_each(|(index, key)| builder.push(*key, at(index)).unwrap());
        builder.finish().unwrap();
        let tables = [&whole, &path].map(|path| std::fs::read(path).unwrap()[HEADER..].to_vec());
        assert!(tables[0] == tables[1], "the same file as without the interruption");

        let other = Builder::start(&path, HashKind::Ntlm, 1 << 21, 10).unwrap();
        assert_eq!(other.place().offset, 0, "other inputs are another build");
    }

    #[test]
    fn damage_and_disorder_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let keys = keys(1_000);
        let mut builder = Builder::start(&path, HashKind::Sha1, 1, 9).unwrap();
        keys.iter().for_each(|key| builder.push(*key, at(0)).unwrap());
        assert!(builder.push(keys[0], at(0)).is_err(), "not in order");
        builder.finish().unwrap();
        let good = std::fs::read(&path).unwrap();
        assert!(Filter::built_in(&good).unwrap().contains(keys[7]).unwrap());
        for place in [0, 9, HEADER + ENTRY + 3, good.len() - 1] {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert!(Filter::built_in(&bad).is_none(), "byte {place}");
            std::fs::write(&path, &bad).unwrap();
            assert!(Filter::open(&path).and_then(|filter| filter.contains(keys[7])).is_err(), "byte {place}");
        }
        assert!(Filter::built_in(&good[..good.len() - 9]).is_none() && Filter::built_in(b"").is_none());
    }

    #[test]
    fn keys_are_the_first_sixteen_digits() {
        assert_eq!(key_of(b"0123456789abcdefFF"), Some(0x0123_4567_89ab_cdef));
        assert_eq!(key_of(b"0123456789ABCDEF:7"), Some(0x0123_4567_89ab_cdef));
        assert_eq!((key_of(b"0123456789abcde"), key_of(b"0123456789abcdeg")), (None, None));
    }
}
