//! Events of all chains by their time, for operators: a page at a time, or all of them into a file.
//!
//! Positions are moments. Events of one moment stay together, also when there are more of them than a page has, so that
//! the moment is enough to go on from. Of one chain, positions are its numbers.

use std::io;

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::checkpoint::NotWritten;
use super::store::{self, Stored};
use super::{EventRow, Recorded, Stream};
use crate::db::{self, Db, Tx};
use crate::kernel::{Id, Timestamp};
use crate::params;

/// Events that are read at once.
const SOME: i64 = 500;
/// How often that is done for one page: a kind that is rare does not keep the database busy for long.
const TIMES: usize = 20;

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those of this chain; none for all.
    pub stream: Option<Stream>,
    /// What this one did; an empty text for nobody known.
    pub actor: Option<String>,
    /// Those of this kind.
    pub kind: Option<String>,
    /// Not before this.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
}

/// An event, and of which chain.
#[derive(Debug, Clone)]
pub struct Found {
    /// The chain's name.
    pub stream: String,
    /// The event.
    pub recorded: Recorded,
}

/// A page of events.
#[derive(Debug, Clone)]
pub struct Results {
    /// Newest first; some more than were asked for when they are of one moment.
    pub items: Vec<Found>,
    /// Where the next page begins; none on the last one. A page may be short, or empty, and not the last one.
    pub next: Option<i64>,
}

/// Which end of time comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    NewestFirst,
    OldestFirst,
}

/// The newest events before a position: `i64::MAX` on the first page, then the `next` of the page before. At most 10,000
/// events are looked at for one page.
///
/// # Errors
/// As every read.
pub async fn search(db: &Db, filter: &Filter, before: i64, limit: u16) -> db::Result<Results> {
    let (mut items, mut from) = (Vec::new(), before);
    let mut last: Option<i64> = None;
    for _ in 0..TIMES {
        let (events, next) = read(db, filter, Order::NewestFirst, from).await?;
        for event in events {
            let place = filter.place(&event);
            if items.len() >= usize::from(limit) && last.is_some_and(|last| last != place) {
                return Ok(Results { items, next: last });
            }
            last = Some(place);
            if filter.fits(&event) {
                items.push(Found::of(event));
            }
        }
        match next {
            Some(next) => from = next,
            None => return Ok(Results { items, next: None }),
        }
    }
    Ok(Results { items, next: Some(from) })
}

/// Writes events out, oldest first, each as a line of JSON without its end, and gives how many there were.
///
/// # Errors
/// [`NotWritten`].
pub async fn export(
    db: &Db,
    filter: &Filter,
    mut write: impl FnMut(&str) -> io::Result<()>,
) -> Result<u64, NotWritten> {
    let (mut written, mut from) = (0, i64::MIN);
    loop {
        let (events, next) = read(db, filter, Order::OldestFirst, from).await?;
        for event in events.into_iter().filter(|event| filter.fits(event)) {
            write(&Found::of(event).to_json())?;
            written += 1;
        }
        match next {
            Some(next) => from = next,
            None => return Ok(written),
        }
    }
}

/// Some events beyond a position, and where to go on; none when there are no more.
async fn read(db: &Db, filter: &Filter, order: Order, from: i64) -> db::Result<(Vec<Stored>, Option<i64>)> {
    let filter = filter.clone();
    db.scan(move |tx| {
        let mut events = filter.some(tx, order, from)?;
        let full = i64::try_from(events.len()).is_ok_and(|count| count >= SOME);
        let last = events.last().map(|event| filter.place(event)).filter(|_| full);
        if filter.stream.is_some() {
            return Ok((events, last));
        }
        if let Some(last) = last {
            events.retain(|event| event.at.micros() != last);
            events.extend(filter.at_once(tx, last)?);
        }
        match order {
            Order::NewestFirst => events.sort_by(|one, other| by_time(other, one)),
            Order::OldestFirst => events.sort_by(by_time),
        }
        Ok((events, last))
    })
    .await
}

fn by_time(one: &Stored, other: &Stored) -> std::cmp::Ordering {
    let key = |event: &Stored| (event.at, event.seq);
    key(one).cmp(&key(other)).then_with(|| one.stream.cmp(&other.stream))
}

impl Filter {
    /// Events that an index finds; [`Filter::fits`] says which of them are meant.
    fn some(&self, tx: &mut Tx<'_>, order: Order, from: i64) -> db::Result<Vec<Stored>> {
        let since = self.since.map_or(i64::MIN, Timestamp::micros);
        let until = self.until.map_or(i64::MAX, Timestamp::micros);
        let (upper, lower) = (from.min(until), from.max(since.saturating_sub(1)));
        match (&self.stream, self.known_actor(), order) {
            (Some(stream), _, Order::NewestFirst) => tx.all(&store::LIST, params![stream.0, from, SOME]),
            (Some(stream), _, Order::OldestFirst) => tx.all(&store::CHAIN, params![stream.0, from, SOME]),
            (None, Some(actor), Order::NewestFirst) => {
                tx.all(&store::BEFORE_BY, params![actor, upper, since, SOME])
            }
            (None, Some(actor), Order::OldestFirst) => {
                tx.all(&store::AFTER_BY, params![actor, lower, until, SOME])
            }
            (None, None, Order::NewestFirst) => tx.all(&store::BEFORE, params![upper, since, SOME]),
            (None, None, Order::OldestFirst) => tx.all(&store::AFTER, params![lower, until, SOME]),
        }
    }

    /// All events of one moment.
    fn at_once(&self, tx: &mut Tx<'_>, moment: i64) -> db::Result<Vec<Stored>> {
        match self.known_actor() {
            Some(actor) => tx.all(&store::AT_BY, params![actor, moment]),
            None => tx.all(&store::AT, params![moment]),
        }
    }

    fn known_actor(&self) -> Option<&str> {
        self.actor.as_deref().filter(|actor| !actor.is_empty())
    }

    /// The position of an event.
    fn place(&self, event: &Stored) -> i64 {
        if self.stream.is_some() { event.seq } else { event.at.micros() }
    }

    fn fits(&self, event: &Stored) -> bool {
        self.kind.as_ref().is_none_or(|kind| *kind == event.kind)
            && self.actor.as_ref().is_none_or(|actor| *actor == event.actor)
            && self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at < until)
    }
}

impl Found {
    fn of(stored: Stored) -> Self {
        Self { stream: stored.stream.clone(), recorded: Recorded::of(stored) }
    }

    /// The event as one line of JSON: `stream`, `seq`, `id`, `at`, `kind`, `actor`, `address`, `details` to the letter as they
    /// were hashed, `hash` in hexadecimal.
    pub fn to_json(&self) -> String {
        let Recorded { seq, id, at, kind, actor, address, details, hash } = &self.recorded;
        let line = Line {
            stream: &self.stream,
            seq: *seq,
            id: *id,
            at: at.to_string(),
            kind,
            actor,
            address,
            details: as_json(details),
            hash: HEXLOWER.encode(hash),
        };
        serde_json::to_string(&line).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct Line<'e> {
    stream: &'e str,
    seq: i64,
    id: Id<EventRow>,
    at: String,
    kind: &'e str,
    actor: &'e str,
    address: &'e str,
    details: Box<RawValue>,
    hash: String,
}

/// JSON as it is; what is none, or has several lines, somebody put there, and it becomes a text.
fn as_json(text: &str) -> Box<RawValue> {
    let raw = RawValue::from_string(text.to_owned()).ok().filter(|_| !text.contains(['\n', '\r']));
    raw.or_else(|| to_raw_value(text).ok()).unwrap_or_else(|| RawValue::NULL.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_stay_as_they_are_and_on_one_line() {
        assert_eq!(as_json(r#"{"b":1,"a":1.0}"#).get(), r#"{"b":1,"a":1.0}"#);
        assert_eq!(as_json("{\"a\":\n1}").get(), r#""{\"a\":\n1}""#);
        assert_eq!(as_json("{").get(), r#""{""#);
    }
}
