//! Whether every chain is whole. Nobody is held up by it: it reads a page at a time, each as it is at one moment, while
//! events are written and old ones are removed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::chain::Chain;
use super::checkpoint::{Checkpoint, Ends};
use super::store::{self, End, Stored};
use super::{Stream, Verdict};
use crate::db::{self, Db};
use crate::params;

/// Rows of each kind that are read at once.
pub(super) const PAGE: i64 = 1_000;
/// Broken chains that are told of; more of them say nothing more.
const MOST_TOLD: usize = 1_000;

/// What checking everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Chains.
    pub streams: u64,
    /// Events that are there.
    pub events: u64,
    /// Events that were removed because they were older than they are kept, or were about somebody who is forgotten: so the
    /// chains say, and nobody can check it.
    pub removed: u64,
    /// What does not hold, by chain; at most 1,000.
    pub broken: Vec<Broken>,
}

/// A chain that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// Which.
    pub stream: String,
    /// The first number at which it does not.
    pub at: i64,
    /// What is wrong there.
    pub what: String,
}

impl Checked {
    /// Whether everything is there and unchanged.
    pub fn is_whole(&self) -> bool {
        self.broken.is_empty()
    }

    fn add(&mut self, chain: Chain) {
        self.streams += u64::from(!chain.is_empty());
        self.events += chain.events;
        self.removed = self.removed.saturating_add(chain.removed);
        if let Some(broken) = chain.broken() {
            self.tell(broken);
        }
    }

    fn tell(&mut self, broken: Broken) {
        if self.broken.len() < MOST_TOLD {
            self.broken.push(broken);
        }
    }
}

/// Recomputes a whole chain.
///
/// # Errors
/// As every read.
pub async fn verify(db: &Db, stream: &Stream) -> db::Result<Verdict> {
    let (mut chain, mut after) = (Chain::new(&stream.0, None), i64::MIN);
    loop {
        let stream = stream.clone();
        let (base, head, events) = db
            .scan(move |tx| {
                let base: Option<End> = tx.opt(&store::BASE_OF, params![stream.0])?;
                let head: Option<End> = tx.opt(&store::HEAD_OF, params![stream.0])?;
                Ok((base, head, tx.all::<Stored>(&store::CHAIN, params![stream.0, after, PAGE])?))
            })
            .await?;
        base.iter().for_each(|base| chain.go_on_from(base));
        events.iter().for_each(|event| chain.event(event));
        match events.last().filter(|_| is_full(&events)) {
            Some(last) if chain.holds() => after = last.seq,
            Some(_) => break,
            None => {
                chain.end(head.as_ref());
                break;
            }
        }
    }
    Ok(chain.broken().map_or(Verdict::Whole, |broken| Verdict::BrokenAt(broken.at)))
}

/// Recomputes every chain; finds those, too, whose head is gone or whose events are. With a checkpoint, also those that were
/// removed altogether or made anew since then. `each` hears how many chains are done.
///
/// # Errors
/// As every read.
pub async fn verify_all(
    db: &Db,
    against: Option<Checkpoint>,
    mut each: impl FnMut(u64),
) -> db::Result<Checked> {
    let mut marks = against.map(Checkpoint::into_ends).unwrap_or_default();
    let mut checked = Checked::default();
    let mut walk = Walk::default();
    while let Some(done) = walk.step(db, &mut marks).await? {
        done.into_iter().for_each(|chain| checked.add(chain));
        each(checked.streams);
    }
    // In the order of their names.
    let missing: BTreeMap<_, _> = marks.into_iter().collect();
    for (stream, (at, _)) in missing {
        checked.tell(Broken { stream, at, what: "the whole chain is missing".into() });
    }
    Ok(checked)
}

/// A walk along all chains, by their names.
#[derive(Default)]
struct Walk {
    /// The chain that it is in the middle of, and up to which number.
    open: Option<(Chain, i64)>,
    over: bool,
}

/// What is there of one chain in a page.
#[derive(Default)]
struct Piece {
    base: Option<End>,
    head: Option<End>,
    events: Vec<Stored>,
}

impl Walk {
    /// One page further: the chains that are done by it. None when the walk is over.
    async fn step(&mut self, db: &Db, marks: &mut Ends) -> db::Result<Option<Vec<Chain>>> {
        if self.over {
            return Ok(None);
        }
        let from = self
            .open
            .as_ref()
            .map_or_else(|| (String::new(), i64::MIN), |(chain, after)| (chain.stream().to_owned(), *after));
        let (mut pieces, last) = page(db, from.clone()).await?;
        if self.open.is_some() {
            // Also when nothing is left of it by now.
            pieces.entry(from.0.clone()).or_default();
        }
        let mut done = Vec::new();
        for (stream, piece) in pieces {
            if last.as_ref().is_some_and(|last| stream > *last) {
                // It comes again, and whole.
                break;
            }
            let (mut chain, mut after) =
                self.open.take().unwrap_or_else(|| (Chain::new(&stream, marks.remove(&stream)), i64::MIN));
            piece.base.iter().for_each(|base| chain.go_on_from(base));
            for event in &piece.events {
                chain.event(event);
                after = event.seq;
            }
            if last.as_ref() == Some(&stream) {
                self.open = Some((chain, after));
            } else {
                chain.end(piece.head.as_ref());
                done.push(chain);
            }
        }
        self.over = last.is_none();
        Ok(Some(done))
    }
}

/// What comes next of all chains, and the last chain of which this may be but a part: up to it nothing is left out.
async fn page(
    db: &Db,
    (stream, after): (String, i64),
) -> db::Result<(BTreeMap<String, Piece>, Option<String>)> {
    let (events, heads, bases) = db
        .scan(move |tx| {
            let events: Vec<Stored> = tx.all(&store::WALK, params![stream, after, PAGE])?;
            let heads: Vec<End> = tx.all(&store::HEADS, params![stream, PAGE])?;
            let bases: Vec<End> = tx.all(&store::BASES, params![stream, PAGE])?;
            Ok((events, heads, bases))
        })
        .await?;
    let ends = [&heads, &bases].map(|ends| ends.last().filter(|_| is_full(ends)).map(|end| &end.stream));
    let event = events.last().filter(|_| is_full(&events)).map(|event| &event.stream);
    let last = ends.into_iter().chain([event]).flatten().min().cloned();
    let mut pieces: BTreeMap<String, Piece> = BTreeMap::new();
    for event in events {
        pieces.entry(event.stream.clone()).or_default().events.push(event);
    }
    for head in heads {
        let of = pieces.entry(head.stream.clone()).or_default();
        of.head = Some(head);
    }
    for base in bases {
        let of = pieces.entry(base.stream.clone()).or_default();
        of.base = Some(base);
    }
    Ok((pieces, last))
}

/// Whether there may be more rows than these.
pub(super) fn is_full<T>(rows: &[T]) -> bool {
    i64::try_from(rows.len()).is_ok_and(|count| count >= PAGE)
}
