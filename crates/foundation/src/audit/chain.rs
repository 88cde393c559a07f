//! One chain: what an event's hash is made of, and what is wrong with a chain that somebody touched.

use super::store::{End, Stored};
use super::verify::Broken;
use crate::kernel::{Digest, sha256};

/// What the first event of a chain goes on from.
pub(super) fn start_of(stream: &str) -> Digest {
    sha256(stream.as_bytes())
}

/// The hash of an event: over its predecessor's hash and each of its parts with its length.
pub(super) fn link(previous: &[u8], event: &Stored) -> Digest {
    let (seq, at) = (event.seq.to_be_bytes(), event.at.micros().to_be_bytes());
    let parts: [&[u8]; 8] = [
        previous,
        &seq,
        &at,
        &event.id,
        event.kind.as_bytes(),
        event.actor.as_bytes(),
        event.address.as_bytes(),
        event.details.as_bytes(),
    ];
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    sha256(&bytes)
}

/// A chain while somebody walks along it.
#[derive(Debug)]
pub(super) struct Chain {
    stream: String,
    /// The number that comes next, and the hash that it goes on from.
    next: i64,
    hash: Vec<u8>,
    /// Where an earlier checkpoint saw it, until that was passed.
    mark: Option<(i64, Digest)>,
    /// The first thing that is wrong, and at which number.
    wrong: Option<(i64, String)>,
    /// Events that were looked at.
    pub(super) events: u64,
    /// Events that were removed before.
    pub(super) removed: u64,
}

impl Chain {
    /// Nothing of it was looked at yet.
    pub(super) fn new(stream: &str, mark: Option<(i64, Digest)>) -> Self {
        Self {
            stream: stream.to_owned(),
            next: 1,
            hash: start_of(stream).as_bytes().to_vec(),
            mark,
            wrong: None,
            events: 0,
            removed: 0,
        }
    }

    /// Whose it is.
    pub(super) fn stream(&self) -> &str {
        &self.stream
    }

    /// The number up to which it was walked.
    pub(super) fn passed(&self) -> i64 {
        self.next.saturating_sub(1)
    }

    /// Whether everything holds so far.
    pub(super) fn holds(&self) -> bool {
        self.wrong.is_none()
    }

    /// It goes on from here: what was before was removed. While it is walked that can move on, too.
    pub(super) fn go_on_from(&mut self, base: &End) {
        self.removed = u64::try_from(base.seq).unwrap_or_default();
        if base.seq >= self.next {
            self.next = base.seq.saturating_add(1);
            self.hash.clone_from(&base.hash);
            self.compare(base.seq, &base.hash);
        }
    }

    /// Its next event.
    pub(super) fn event(&mut self, event: &Stored) {
        self.events += 1;
        if !self.holds() {
            return;
        }
        if event.seq < self.next {
            self.is_wrong(event.seq, "there is an event where there was none, or none any more");
        } else if event.seq > self.next {
            self.is_wrong(self.next, "the event is missing");
        } else if link(&self.hash, event).as_bytes() != event.hash.as_slice() {
            self.is_wrong(event.seq, "the event was changed, or what it goes on from");
        } else {
            self.compare(event.seq, &event.hash);
            self.next = event.seq.saturating_add(1);
            self.hash.clone_from(&event.hash);
        }
    }

    /// There are no more events.
    pub(super) fn end(&mut self, head: Option<&End>) {
        match head {
            None if self.next == 1 && self.events == 0 => {}
            None => self.is_wrong(self.next, "its head is missing"),
            Some(head) if head.seq > self.passed() => {
                self.is_wrong(self.next, "the newest events are missing");
            }
            Some(head) if head.seq < self.passed() => {
                self.is_wrong(head.seq.saturating_add(1), "there are events behind its head");
            }
            Some(head) if head.hash != self.hash => self.is_wrong(self.next, "its head was changed"),
            Some(_) => {}
        }
        if let Some((seq, _)) = self.mark {
            self.is_wrong(seq, "it ends before the checkpoint");
        }
    }

    /// Whether there was anything of it at all.
    pub(super) fn is_empty(&self) -> bool {
        self.next == 1 && self.events == 0 && self.wrong.is_none()
    }

    /// What is wrong with it first.
    pub(super) fn broken(self) -> Option<Broken> {
        let stream = self.stream;
        self.wrong.map(|(at, what)| Broken { stream, at, what })
    }

    /// Holds what stands at a number against the checkpoint.
    fn compare(&mut self, seq: i64, hash: &[u8]) {
        let Some((mark, expected)) = self.mark.take_if(|(mark, _)| *mark <= seq) else { return };
        if mark == seq && expected.as_bytes() != hash {
            self.is_wrong(seq, "it does not go on from the checkpoint");
        }
    }

    /// The first thing counts; what comes after it cannot hold.
    fn is_wrong(&mut self, at: i64, what: &str) {
        if self.holds() {
            self.wrong = Some((at, what.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Timestamp;

    fn event(seq: i64, kind: &str, address: &str) -> Stored {
        Stored {
            stream: "s".into(),
            seq,
            id: vec![7; 16],
            at: Timestamp::from_micros(1),
            kind: kind.into(),
            actor: String::new(),
            address: address.into(),
            details: "{}".into(),
            hash: Vec::new(),
        }
    }

    /// What was written once is checked for ever: this must not change.
    #[test]
    fn a_hash_covers_each_part_with_its_length() {
        let start = start_of("s");
        let hash = |event: &Stored| link(start.as_bytes(), event);
        assert_ne!(hash(&event(1, "ab", "c")), hash(&event(1, "a", "bc")));
        assert_ne!(hash(&event(1, "a", "")), hash(&event(2, "a", "")));
        let (one, mut input) = (1i64.to_be_bytes(), Vec::new());
        let parts: [&[u8]; 8] = [start.as_bytes(), &one, &one, &[7; 16], b"ab", b"", b"c", b"{}"];
        for part in parts {
            input.extend_from_slice(&(part.len() as u64).to_be_bytes());
            input.extend_from_slice(part);
        }
        assert_eq!(hash(&event(1, "ab", "c")), sha256(&input));
    }
}
