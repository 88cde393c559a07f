//! Counters in this process. Their number is bounded: when there are too many, what counts against nobody any more is
//! forgotten first, and then those that did the least; whoever does most is remembered longest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Key;
use super::gcra::Quota;
use crate::kernel::Timestamp;

/// Keys that one limit remembers at most: about 2 MiB.
const MOST: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<Key, i64>>);

impl Memory {
    /// The key's number as far as this process knows it; 0 when it knows nothing.
    pub(super) fn known(&self, key: Key) -> i64 {
        self.cells().get(&key).copied().unwrap_or(0)
    }

    /// Tries once: whether it is allowed, and the number after it.
    pub(super) fn take(&self, key: Key, quota: &Quota, now: Timestamp) -> (bool, i64) {
        let mut cells = self.cells();
        let (allowed, free_at) = quota.try_at(cells.get(&key).copied().unwrap_or(0), now);
        put(&mut cells, key, free_at, now);
        (allowed, free_at)
    }

    /// Another store said so.
    pub(super) fn learn(&self, key: Key, free_at: i64, quota: &Quota, now: Timestamp) {
        let mut cells = self.cells();
        if cells.get(&key).is_none_or(|known| quota.from(*known, now) < free_at) {
            put(&mut cells, key, free_at, now);
        }
    }

    /// How many keys are remembered.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.cells().len()
    }

    fn cells(&self) -> std::sync::MutexGuard<'_, HashMap<Key, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put(cells: &mut HashMap<Key, i64>, key: Key, free_at: i64, now: Timestamp) {
    if cells.len() >= MOST && !cells.contains_key(&key) {
        cells.retain(|_, free_at| *free_at > now.micros());
        if cells.len() >= MOST - MOST / 8 {
            let mut all: Vec<i64> = cells.values().copied().collect();
            let (_, least, _) = all.select_nth_unstable(MOST / 4);
            let least = *least;
            cells.retain(|_, free_at| *free_at > least);
        }
    }
    cells.insert(key, free_at);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whatever_comes_the_number_of_keys_is_bounded_and_the_busiest_stay() {
        let (memory, now) = (Memory::default(), Timestamp::from_micros(1_000_000));
        let quota = Quota::new(10, Duration::from_secs(600)).unwrap();
        let busy = Key(7);
        for _ in 0..10 {
            assert!(memory.take(busy, &quota, now).0);
        }
        for stranger in 0..300_000_u64 {
            memory.take(Key(1_000 + stranger), &quota, now);
            assert!(memory.len() <= MOST);
        }
        assert!(!memory.take(busy, &quota, now).0, "a flood of strangers made it forget");
    }

    #[test]
    fn what_counts_no_more_is_forgotten_first() {
        let (memory, then) = (Memory::default(), Timestamp::from_micros(1_000_000));
        let quota = Quota::new(10, Duration::from_secs(600)).unwrap();
        for stranger in 0..MOST as u64 {
            memory.take(Key(stranger), &quota, then);
        }
        memory.take(Key(u64::MAX), &quota, then + Duration::from_secs(3600));
        assert_eq!(memory.len(), 1);
    }
}
