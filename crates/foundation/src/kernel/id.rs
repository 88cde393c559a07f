//! Ids: a UUIDv7 underneath (16 bytes in the database, ordered by time), `usr_` and 32 hex digits outside.
//! An id names; it is never a secret (ASVS 11.5.1).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use uuid::Uuid;

use super::{Clock, Entropy};

/// Something that has ids; the type parameter of [`Id`].
pub trait Entity {
    /// The three letters before the underscore, such as `usr`.
    const PREFIX: &'static str;
}

/// The id of one `E`. A user's id cannot be given where a session's is wanted.
pub struct Id<E>(Uuid, PhantomData<fn() -> E>);

/// The text is not an id of this kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind")]
pub struct IdError;

impl<E: Entity> Id<E> {
    /// A new id, ordered by the clock's time (RFC 9562 §5.7).
    pub fn new(clock: &Clock, chance: &Entropy) -> Self {
        let millis = u64::try_from(clock.now().micros() / 1_000).unwrap_or(0);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &chance.bytes()).into_uuid(), PhantomData)
    }

    /// The 16 bytes that the database stores.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id with these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes), PhantomData)
    }

    /// The id whose 16 bytes these are, when there are 16.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, IdError> {
        Uuid::from_slice(bytes).map(|uuid| Self(uuid, PhantomData)).map_err(|_| IdError)
    }
}

impl<E: Entity> fmt::Display for Id<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", E::PREFIX, self.0.simple())
    }
}

impl<E: Entity> FromStr for Id<E> {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let hex = text.strip_prefix(E::PREFIX).and_then(|rest| rest.strip_prefix('_')).ok_or(IdError)?;
        // One id has one spelling: 32 lower-case digits, no hyphens, no braces.
        if hex.len() != 32 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(IdError);
        }
        Uuid::try_parse(hex).map(|uuid| Self(uuid, PhantomData)).map_err(|_| IdError)
    }
}

impl<E: Entity> fmt::Debug for Id<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<E> Clone for Id<E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E> Copy for Id<E> {}
impl<E> PartialEq for Id<E> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<E> Eq for Id<E> {}
impl<E> PartialOrd for Id<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Id<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}
impl<E> Hash for Id<E> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<E: Entity> serde::Serialize for Id<E> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de, E: Entity> serde::Deserialize<'de> for Id<E> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Timestamp;

    struct Pearl;
    impl Entity for Pearl {
        const PREFIX: &'static str = "prl";
    }

    #[test]
    fn an_id_has_one_spelling() {
        let id = Id::<Pearl>::new(&Clock::manual(Timestamp::from_micros(1_000_000)), &Entropy::seeded(b"id"));
        let text = id.to_string();
        assert_eq!(text.parse::<Id<Pearl>>(), Ok(id));
        for other in [
            text.to_uppercase(),
            text.replace("prl", "usr"),
            format!("{text}0"),
            "prl_".into(),
            String::new(),
        ] {
            assert_eq!(other.parse::<Id<Pearl>>(), Err(IdError), "{other}");
        }
    }

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let (clock, chance) = (Clock::manual(Timestamp::from_micros(0)), Entropy::System);
        let first = Id::<Pearl>::new(&clock, &chance);
        clock.advance(std::time::Duration::from_millis(1));
        assert!(Id::<Pearl>::new(&clock, &chance) > first);
    }
}
