//! How many mails go a way in a span of time: the row of the span decides. A provider's quota is a hard number, so there is
//! no smoothing.

use std::time::Duration;

use super::{DeliverMail, store};
use crate::db::{self, Db};
use crate::jobs::{self, Job};
use crate::kernel::Timestamp;
use crate::params;

/// So many mails in such a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

impl Pace {
    /// `100/24h`.
    pub fn parse(text: &str) -> Option<Self> {
        let (count, per) = text.split_once('/')?;
        let per = humantime::parse_duration(per.trim()).ok()?;
        let count = count.trim().parse().ok()?;
        (count > 0 && per >= Duration::from_millis(100) && per <= Duration::from_secs(31 * 86_400))
            .then_some(Self { count, per })
    }

    /// The span that a moment is in, and when the next begins.
    fn window(&self, now: Timestamp) -> (Timestamp, Timestamp) {
        let length = i64::try_from(self.per.as_micros()).unwrap_or(i64::MAX).max(1);
        let starts = Timestamp::from_micros(now.micros() - now.micros().rem_euclid(length));
        (starts, starts + self.per)
    }
}

/// A place that was taken: in which span.
pub(super) type Taken = Vec<(String, Timestamp)>;

/// There is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Full {
    /// Nobody is asked before this time has passed.
    pub(super) pause: Duration,
    /// What waits for a place is spread over this time after it: the next span has room for some of them alone.
    pub(super) spread: Duration,
}

impl Full {
    /// For this long, whoever else waits.
    pub(super) fn for_a(pause: Duration) -> Self {
        Self { pause, spread: pause }
    }
}

/// Whose pace it is.
#[derive(Debug, Clone)]
pub(super) enum Whose {
    /// A provider.
    Provider(String),
    /// A domain.
    Domain(String),
}

impl Whose {
    /// Its name in the table, for one of its paces.
    fn subject(&self, n: usize) -> String {
        match self {
            Self::Provider(name) => format!("provider {name} {n}"),
            Self::Domain(name) => format!("domain {name} {n}"),
        }
    }
}

/// The longest that what waits is spread over.
const SPREAD: Duration = Duration::from_secs(3_600);

/// Takes a place in each of these spans, or in none.
pub(super) async fn take(
    db: &Db,
    whose: &Whose,
    paces: &[Pace],
    now: Timestamp,
) -> db::Result<Result<Taken, Full>> {
    if paces.is_empty() {
        return Ok(Ok(Taken::new()));
    }
    let (paces, whose) = (paces.to_vec(), whose.clone());
    db.write(move |tx| {
        let mut taken = Taken::new();
        for (n, pace) in paces.iter().enumerate() {
            let (starts, ends) = pace.window(now);
            let (subject, most) = (whose.subject(n), i64::from(pace.count));
            if tx.opt::<(i64,)>(&store::TAKE_PLACE, params![subject, starts, most, ends])?.is_some() {
                taken.push((subject, starts));
                continue;
            }
            put_back(tx, &taken)?;
            let spans = match whose {
                Whose::Provider(_) => {
                    u32::try_from(jobs::waiting_in(tx, DeliverMail::LANE)?).unwrap_or(u32::MAX) / pace.count
                }
                // How much waits for one domain is not known.
                Whose::Domain(_) => 2,
            };
            let spread = pace.per.saturating_mul(spans).min(SPREAD.max(pace.per));
            return Ok(Err(Full { pause: now.until(ends).max(Duration::from_millis(50)), spread }));
        }
        Ok(Ok(taken))
    })
    .await
}

/// Gives places back that nobody was given.
pub(super) async fn give_back(db: &Db, taken: Taken) -> db::Result<()> {
    if taken.is_empty() {
        return Ok(());
    }
    db.write(move |tx| put_back(tx, &taken)).await
}

fn put_back(tx: &mut db::Tx<'_>, taken: &Taken) -> db::Result<()> {
    taken.iter().try_for_each(|(subject, starts)| {
        tx.execute(&store::GIVE_PLACE_BACK, params![subject, starts]).map(|_| ())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_a_count_in_a_time() {
        let day = Duration::from_secs(86_400);
        assert_eq!(Pace::parse("100/24h"), Some(Pace { count: 100, per: day }));
        assert_eq!(Pace::parse("2 / 1s"), Some(Pace { count: 2, per: Duration::from_secs(1) }));
        for wrong in ["", "100", "0/1h", "x/1h", "1/soon", "1/0s", "-1/1h", "1/1y"] {
            assert_eq!(Pace::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn spans_follow_each_other_without_a_gap() {
        let pace = Pace { count: 1, per: Duration::from_secs(60) };
        let (starts, ends) = pace.window(Timestamp::from_micros(90_000_000));
        assert_eq!((starts.micros(), ends.micros()), (60_000_000, 120_000_000));
        assert_eq!(pace.window(ends).0, ends);
    }
}
