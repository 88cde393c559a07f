//! Attempts at one password are looked at one after the other: one that is right gives its attempt back before the next
//! is counted. Without this, whoever signs in on six devices at the same moment would be locked out by themselves.
//!
//! It keeps nobody from guessing; the row does that, also against other processes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Waiting = HashMap<String, (Arc<tokio::sync::Mutex<()>>, usize)>;

/// So many may wait for their turn at one password.
const MOST: usize = 64;

/// Whose turn it is, by password. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Mutex<Waiting>>);

/// It is one's turn until this is dropped.
#[derive(Debug)]
pub struct Turn {
    _held: OwnedMutexGuard<()>,
    _place: Place,
}

/// A place in the queue; given up when dropped, also while waiting.
#[derive(Debug)]
struct Place {
    turns: Turns,
    of: String,
}

impl Turns {
    /// Waits for one's turn at this password; none when too many do.
    pub(super) async fn take(&self, of: String) -> Option<Turn> {
        let queue = {
            let mut waiting = self.waiting();
            let (queue, places) = waiting.entry(of.clone()).or_default();
            if *places >= MOST {
                return None;
            }
            *places += 1;
            queue.clone()
        };
        let place = Place { turns: self.clone(), of };
        Some(Turn { _held: queue.lock_owned().await, _place: place })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.turns.waiting();
        if let Some((_, places)) = waiting.get_mut(&self.of) {
            *places -= 1;
            if *places == 0 {
                waiting.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_after_the_other_and_nothing_is_left_behind() {
        let turns = Turns::default();
        let first = turns.take("ada".into()).await;
        let other = turns.take("eve".into()).await;
        let impatient = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.take("ada".into()).await) }
        });
        let patient = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take("ada".into()).await }
        });
        while turns.waiting().get("ada").is_none_or(|(_, places)| *places < 3) {
            tokio::task::yield_now().await;
        }
        assert!(!patient.is_finished());
        impatient.abort();
        drop((first, other));
        drop(patient.await);
        let _ = impatient.await;
        assert!(turns.waiting().is_empty());
    }

    #[tokio::test]
    async fn no_more_than_so_many_wait() {
        let turns = Turns::default();
        let held = turns.take("ada".into()).await;
        let waiting: Vec<_> = (1..MOST)
            .map(|_| {
                let turns = turns.clone();
                tokio::spawn(async move { turns.take("ada".into()).await.is_some() })
            })
            .collect();
        while turns.waiting().get("ada").is_none_or(|(_, places)| *places < MOST) {
            tokio::task::yield_now().await;
        }
        assert!(turns.take("ada".into()).await.is_none());
        assert!(turns.take("eve".into()).await.is_some(), "others do not wait for her");
        drop(held);
        for one in waiting {
            assert!(one.await.unwrap());
        }
    }
}
