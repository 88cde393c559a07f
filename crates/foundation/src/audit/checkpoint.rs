//! Where every chain was at one moment, to be kept where nobody who can write to the database can write: they could make
//! a chain anew from any event on, and it would be whole.
//!
//! One line of JSON for each chain, and last one with the moment, how many they are, and the SHA-256 of all lines before
//! it, so that a file that was cut off or changed by accident is noticed.

use std::collections::HashMap;
use std::io::{self, BufRead};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::store::{self, End};
use super::verify::{PAGE, is_full};
use crate::db::{self, Db};
use crate::kernel::{Digest, Timestamp};
use crate::params;

/// The last number of each chain, and its hash.
pub(super) type Ends = HashMap<String, (i64, Digest)>;

/// Where every chain was at one moment.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The moment.
    pub at: Timestamp,
    ends: Ends,
}

/// Why something could not be written out.
#[derive(Debug, thiserror::Error)]
pub enum NotWritten {
    /// It could not be read.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// It could not be put where it was to go.
    #[error("it could not be written: {0}")]
    Io(#[from] io::Error),
}

/// A text is no checkpoint, or not all of one.
#[derive(Debug, thiserror::Error)]
#[error("it is not a whole checkpoint: {0}")]
pub struct NotACheckpoint(String);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    stream: String,
    seq: i64,
    hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LastLine {
    at: String,
    streams: u64,
    digest: String,
}

/// Writes a checkpoint, each line without its end, and gives how many chains there are.
///
/// # Errors
/// [`NotWritten`].
pub async fn checkpoint(
    db: &Db,
    now: Timestamp,
    mut write: impl FnMut(&str) -> io::Result<()>,
) -> Result<u64, NotWritten> {
    let (mut sum, mut streams, mut last) = (Sum::new(), 0, String::new());
    loop {
        let from = last.clone();
        let heads: Vec<End> = db.scan(move |tx| tx.all(&store::HEADS, params![from, PAGE])).await?;
        // A page begins with the last one of the page before.
        for head in heads.iter().filter(|head| head.stream != last) {
            let line = Line { stream: head.stream.clone(), seq: head.seq, hash: HEXLOWER.encode(&head.hash) };
            let line = serde_json::to_string(&line).unwrap_or_default();
            sum.add(&line);
            write(&line)?;
            streams += 1;
        }
        match heads.last().filter(|_| is_full(&heads)) {
            Some(head) => last.clone_from(&head.stream),
            None => break,
        }
    }
    let line = LastLine { at: now.to_string(), streams, digest: sum.hex() };
    write(&serde_json::to_string(&line).unwrap_or_default())?;
    Ok(streams)
}

impl Checkpoint {
    /// Reads one that [`checkpoint`] wrote.
    ///
    /// # Errors
    /// [`NotACheckpoint`] when a line is missing, changed or none of its.
    pub fn read(from: impl BufRead) -> Result<Self, NotACheckpoint> {
        let (mut sum, mut ends, mut whole) = (Sum::new(), Ends::new(), None);
        for (number, line) in (1u64..).zip(from.lines()) {
            let wrong = |what: &str| NotACheckpoint(format!("line {number} {what}"));
            let line = line.map_err(|e| wrong(&format!("cannot be read: {e}")))?;
            if whole.is_some() {
                return Err(wrong("comes after the last one"));
            }
            if let Ok(last) = serde_json::from_str::<LastLine>(&line) {
                whole = Some(last);
                continue;
            }
            let Line { stream, seq, hash } =
                serde_json::from_str(&line).map_err(|_| wrong("is none of a checkpoint's"))?;
            let hash: Option<[u8; 32]> =
                HEXLOWER.decode(hash.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
            let hash = hash.filter(|_| seq > 0).ok_or_else(|| wrong("has no number or no hash"))?;
            if ends.insert(stream, (seq, Digest::from_bytes(hash))).is_some() {
                return Err(wrong("tells of a chain once more"));
            }
            sum.add(&line);
        }
        let last = whole.ok_or_else(|| NotACheckpoint("its last line is missing".into()))?;
        let at = Timestamp::parse(&last.at).filter(|_| last.digest == sum.hex());
        match at.filter(|_| u64::try_from(ends.len()) == Ok(last.streams)) {
            Some(at) => Ok(Self { at, ends }),
            None => Err(NotACheckpoint("its lines are not those that were written".into())),
        }
    }

    pub(super) fn into_ends(self) -> Ends {
        self.ends
    }
}

/// The SHA-256 of lines, each with its end.
struct Sum(digest::Context);

impl Sum {
    fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    fn add(&mut self, line: &str) {
        self.0.update(line.as_bytes());
        self.0.update(b"\n");
    }

    fn hex(self) -> String {
        HEXLOWER.encode(self.0.finish().as_ref())
    }
}
