//! Chance is an argument. Secrets come from the operating system; a test may ask for the same chance twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::secret::MacKey;

/// Where random bytes come from. Cheap to clone; clones share one source.
#[derive(Clone, Debug)]
pub enum Entropy {
    /// The operating system's generator (a CSPRNG; ASVS 11.5.1).
    System,
    /// A repeatable stream, for tests alone.
    Seeded(Arc<(MacKey, AtomicU64)>),
}

impl Entropy {
    /// The same bytes in the same order for the same seed.
    pub fn seeded(seed: &[u8]) -> Self {
        Self::Seeded(Arc::new((MacKey::new(seed), AtomicU64::new(0))))
    }

    /// `N` fresh random bytes.
    ///
    /// # Panics
    /// When the operating system gives no randomness: nothing an accounts server does is safe then.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0u8; N];
        self.fill(&mut out);
        out
    }

    /// A uniformly distributed number in `0..bound`, by rejection, so that no value is likelier than another.
    pub fn below(&self, bound: u32) -> u32 {
        let bound = bound.max(1);
        let limit = u32::MAX - u32::MAX % bound;
        loop {
            let n = u32::from_le_bytes(self.bytes());
            if n < limit {
                return n % bound;
            }
        }
    }

    fn fill(&self, out: &mut [u8]) {
        match self {
            #[expect(
                clippy::disallowed_methods,
                clippy::expect_used,
                reason = "the one door to the OS generator; no safe way on without it"
            )]
            Self::System => {
                aws_lc_rs::rand::fill(out).expect("the operating system's random generator failed")
            }
            Self::Seeded(state) => {
                for chunk in out.chunks_mut(32) {
                    let block = state.0.mac(&state.1.fetch_add(1, Ordering::SeqCst).to_le_bytes());
                    for (to, from) in chunk.iter_mut().zip(block.as_bytes()) {
                        *to = *from;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_the_system_does_not() {
        assert_eq!(Entropy::seeded(b"a").bytes::<40>(), Entropy::seeded(b"a").bytes::<40>());
        assert_ne!(Entropy::seeded(b"a").bytes::<16>(), Entropy::seeded(b"b").bytes::<16>());
        assert_ne!(Entropy::System.bytes::<16>(), Entropy::System.bytes::<16>());
    }

    #[test]
    fn below_stays_below() {
        let chance = Entropy::seeded(b"below");
        assert!((0..2_000).all(|_| chance.below(7) < 7));
    }
}
