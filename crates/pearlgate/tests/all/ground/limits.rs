//! How often something may be done: four stores and one answer, however many ask at once and from however many servers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use foundation::db::{Db, Error, Kind, Statement};
use foundation::kernel::{Clock, Entropy, MacKey, Secret};
use foundation::limits::{Limits, Mode, Name, Quota, Redis, Rule, Shared, Taken, sweep};
use foundation::outbound::{Dependencies, Settings as Guard};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::on_both;
use crate::support::{Bare, Engine, START, environment};

foundation::statements! {
    STORED = "SELECT key FROM limits ORDER BY key";
    FILE_SIZE = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    ROW_SIZE = "SELECT CAST(MAX(pg_column_size(l.*)) AS BIGINT) FROM limits l";
}

const TRIES: Name = "tries";
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// So many in so many minutes.
fn rule(count: u32, minutes: u64) -> Rule {
    let quota = Quota::new(count, Duration::from_secs(minutes * 60)).unwrap();
    Rule { quota, mode: Mode::On, lazy: false }
}

/// What hides whom the counters are about: every test has its own, and with it counters of its own.
fn secret() -> MacKey {
    MacKey::new(&Entropy::System.bytes::<32>())
}

/// One limit, as one server counts it.
fn server(rule: Rule, shared: Shared, secret: &MacKey, clock: &Clock) -> Limits {
    Limits::new([(TRIES, rule)], shared, secret.clone(), clock.clone())
}

/// A server's way to the Redis that all tests share, with more patience than a server has: what is asked here is how it
/// counts, not how fast this machine is today. What it counted is forgotten by itself.
fn way(clock: &Clock) -> (Redis, Dependencies) {
    let dependencies = Dependencies::new(clock.clone(), foundation::kernel::Entropy::System);
    let guard = Guard {
        name: "redis".into(),
        timeout: Duration::from_secs(5),
        degraded: "",
        patience: None,
        at_a_time: 1_024,
    };
    let url = Secret::new(environment("PEARLGATE_TEST_REDIS"));
    (Redis::new(&url, dependencies.add(guard)).unwrap(), dependencies)
}

/// The keys that are stored in the database.
async fn stored(db: &Db) -> Vec<i64> {
    let rows: Vec<(i64,)> = db.read_one(|tx| tx.all(&STORED, &[])).await.unwrap();
    rows.into_iter().map(|(key,)| key).collect()
}

async fn number(db: &Db, statement: &'static Statement) -> i64 {
    db.read_one(move |tx| tx.one::<(i64,)>(statement, &[])).await.unwrap().0
}

/// What an attempt came to; nothing when no connection was free, because then it was not made.
fn made(attempt: Result<Option<Taken>, Error>) -> Option<Taken> {
    match attempt {
        Ok(taken) => Some(taken.expect("the limit is on")),
        Err(Error::Unavailable(why)) if why.contains("no connection was free") => None,
        Err(error) => panic!("{error}"),
    }
}

async fn take(server: &Limits, subject: &[u8]) -> Taken {
    loop {
        if let Some(taken) = made(server.take(TRIES, subject).await) {
            return taken;
        }
    }
}

/// Eve tries, in a transaction.
async fn spend(server: &Limits, db: &Db) -> Taken {
    loop {
        let inner = server.clone();
        if let Some(taken) = made(db.write(move |tx| inner.take_in(tx, TRIES, b"eve")).await) {
            return taken;
        }
    }
}

/// Eve's last attempt counts no more, unless the transaction changes its mind.
async fn give_back(server: &Limits, db: &Db, changes_its_mind: bool) {
    let inner = server.clone();
    let given = db.write(move |tx| {
        inner.give_back_in(tx, TRIES, b"eve")?;
        if changes_its_mind { Err(Error::Bug("changed my mind".into())) } else { Ok(()) }
    });
    assert_eq!(given.await.is_err(), changes_its_mind);
}

/// Makes so many attempts at the same time: none sets out before all are ready. How many were allowed.
async fn at_once<F: Future<Output = Taken> + Send + 'static>(
    count: usize,
    attempt: impl Fn(usize) -> F,
) -> usize {
    let ready = Arc::new(Barrier::new(count));
    let attempts = (0..count).map(|n| {
        let (ready, attempt) = (ready.clone(), attempt(n));
        async move {
            ready.wait().await;
            attempt.await
        }
    });
    let attempts: JoinSet<Taken> = attempts.collect();
    attempts.join_all().await.into_iter().filter(|taken| taken.standing.allowed).count()
}

/// Of so many attempts by one subject, on both servers at once, how many were allowed.
async fn by_ada(both: &[Limits; 2], count: usize) -> usize {
    let attempt = |n: usize| {
        let server = both[n % 2].clone();
        async move { take(&server, b"ada").await }
    };
    at_once(count, attempt).await
}

/// Names, how many, in how many minutes. Nothing flows in within less than a minute: Redis forgets by its own clock.
const RULES: [(Name, u32, u64); 4] = [("one", 1, 1), ("ten", 10, 10), ("uneven", 7, 10), ("many", 50, 100)];

/// The same limits in four stores. Each is asked by two servers that know of each other through it alone; only memory
/// is one server's.
struct Stores {
    clock: Clock,
    all: [(&'static str, [Limits; 2]); 4],
    ways: Vec<Dependencies>,
    sqlite: Bare,
    postgres: Bare,
    /// For a Redis that is away.
    spare: Bare,
}

impl Stores {
    async fn open() -> Self {
        let (clock, secret) = (Clock::manual(START), secret());
        let rules = RULES.map(|(name, count, minutes)| (name, rule(count, minutes)));
        let with = |shared: Shared| Limits::new(rules, shared, secret.clone(), clock.clone());
        let (sqlite, spare) = (Bare::open(Engine::Sqlite).await, Bare::open(Engine::Sqlite).await);
        let postgres = Bare::open(Engine::Postgres).await;
        let elsewhere = postgres.elsewhere().await;
        let (redis, ways): (Vec<Redis>, Vec<Dependencies>) = (0..2).map(|_| way(&clock)).unzip();
        let memory = with(Shared::None);
        let in_database = |db: &Db| with(Shared::Database(db.clone()));
        let in_redis = |n: usize| with(Shared::Redis(Box::new(redis[n].clone()), spare.db.clone()));
        let all = [
            ("memory", [memory.clone(), memory]),
            ("SQLite", [in_database(&sqlite.db), in_database(&sqlite.db)]),
            ("PostgreSQL", [in_database(&postgres.db), in_database(&elsewhere)]),
            ("Redis", [in_redis(0), in_redis(1)]),
        ];
        Self { clock, all, ways, sqlite, postgres, spare }
    }

    /// What an attempt comes to: the same in all of them.
    async fn take(&self, server: usize, name: Name, subject: &[u8]) -> Taken {
        let mut said = Vec::new();
        for (store, servers) in &self.all {
            let taken = servers[server].take(name, subject).await.unwrap().expect("the limit is on");
            said.push((*store, taken));
        }
        let first = said[0].1;
        for (store, taken) in said {
            assert_eq!(taken, first, "{store}, as memory");
        }
        first
    }

    async fn close(self) {
        for way in &self.ways {
            assert_eq!(way.health()[0].state, "up");
        }
        assert!(stored(&self.spare.db).await.is_empty(), "Redis was there; nobody had to count for it");
        for bare in [self.sqlite, self.postgres, self.spare] {
            bare.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_both_databases_and_redis_give_the_same_answers() {
    let stores = Stores::open().await;
    let dice = Entropy::seeded(b"four stores and one answer");
    let below = |bound: u32| usize::try_from(dice.below(bound)).unwrap();
    let (mut allowed, mut refused, mut had_to_wait) = (0, 0, BTreeSet::new());
    for _ in 0..80 {
        // Somebody is in a hurry for a while, and then it is quiet.
        let ((name, ..), subject) = (RULES[below(4)], [b"ada", b"eve", b"bob"][below(3)]);
        for _ in 0..=below(14) {
            let taken = stores.take(below(2), name, subject).await;
            if taken.standing.allowed {
                allowed += 1;
            } else {
                refused += 1;
                had_to_wait.insert(taken.standing.retry_after);
            }
            let breath = u64::from(dice.below(3)) * u64::from(dice.below(9_000_000));
            stores.clock.advance(Duration::from_micros(breath));
        }
        stores.clock.advance([Duration::ZERO, MINUTE, 10 * MINUTE, 30 * MINUTE, DAY][below(5)]);
    }
    assert!(allowed > 100 && refused > 100, "{allowed} were allowed and {refused} refused");
    assert!(had_to_wait.len() > 30, "by all kinds of margins: {had_to_wait:?}");
    stores.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_put_back_keeps_nobody_out() {
    let stores = Stores::open().await;
    stores.clock.set(START + DAY);
    for subject in [b"ada", b"eve"] {
        assert!(!stores.take(0, "one", subject).await.refused());
        assert!(stores.take(0, "one", subject).await.refused());
    }
    // A number from tomorrow counts for nothing, neither for the server that wrote it nor for one that finds it; and
    // then it is counted from now.
    stores.clock.set(START);
    for (server, subject) in [(0, b"ada"), (1, b"eve")] {
        let taken = stores.take(server, "one", subject).await;
        assert!(!taken.refused());
        assert_eq!(taken.standing.free_in, MINUTE);
        assert!(stores.take(server, "one", subject).await.refused());
    }
    // One that a clock a little ahead of ours has written does count.
    stores.clock.set(START - MINUTE / 2);
    for subject in [b"ada", b"eve"] {
        for server in [0, 1] {
            assert!(stores.take(server, "one", subject).await.refused());
        }
    }
    stores.close().await;
}

on_both! {
    async fn two_hundred_at_once_are_ten_whichever_server_they_come_to(bare: &Bare) {
        let (secret, dbs) = (secret(), [bare.db.clone(), bare.elsewhere().await]);
        let both = dbs.clone().map(|db| server(rule(10, 10), Shared::Database(db), &secret, &bare.clock));
        assert_eq!(by_ada(&both, 200).await, 10);
        assert_eq!(by_ada(&both, 50).await, 0);
        bare.clock.advance(MINUTE);
        assert_eq!(by_ada(&both, 50).await, 1, "what flows in is shared as well");
        // In the transactions of what they stand for, too.
        let in_transactions = |n: usize| {
            let (server, db) = (both[n % 2].clone(), dbs[n % 2].clone());
            async move { spend(&server, &db).await }
        };
        assert_eq!(at_once(200, in_transactions).await, 10);
        // The trap: servers that share nothing let ten through each.
        let apart = dbs.map(|_| server(rule(10, 10), Shared::None, &secret, &bare.clock));
        assert_eq!(by_ada(&apart, 200).await, 20);
    }
}

/// Two servers with a Redis, and a database for when it is away.
fn with_redis(spare: &Bare) -> [Limits; 2] {
    let secret = secret();
    [(), ()].map(|()| {
        let shared = Shared::Redis(Box::new(way(&spare.clock).0), spare.db.clone());
        server(rule(10, 10), shared, &secret, &spare.clock)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_are_ten_in_redis_too() {
    let spare = Bare::open(Engine::Sqlite).await;
    let both = with_redis(&spare);
    for server in &both {
        // Connected; the moment before has a story of its own.
        assert!(!take(server, b"somebody else").await.refused());
    }
    assert_eq!(by_ada(&both, 200).await, 10);
    assert_eq!(by_ada(&both, 50).await, 0);
    spare.clock.advance(MINUTE);
    assert_eq!(by_ada(&both, 50).await, 1);
    assert!(stored(&spare.db).await.is_empty(), "Redis decided, and nobody else");
    spare.close().await;
}

/// Whoever comes while the first of them is still connecting is counted where the first one is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_at_once_are_ten_before_there_is_a_connection() {
    let spare = Bare::open(Engine::Sqlite).await;
    assert_eq!(by_ada(&with_redis(&spare), 200).await, 10);
    spare.close().await;
}

on_both! {
    async fn what_is_spent_in_a_transaction_stands_and_falls_with_it(bare: &Bare) {
        let (db, clock) = (&bare.db, &bare.clock);
        let eves = server(rule(10, 10), Shared::Database(db.clone()), &secret(), clock);
        for _ in 0..20 {
            let inner = eves.clone();
            let changed_its_mind = db.write(move |tx| {
                let taken = inner.take_in(tx, TRIES, b"eve")?.expect("the limit is on");
                Err::<(), _>(Error::Bug(format!("changed my mind with {} left", taken.standing.remaining)))
            });
            let error = changed_its_mind.await.unwrap_err().to_string();
            assert!(error.contains("changed my mind with 9 left"), "{error}");
        }
        assert!(stored(db).await.is_empty());

        for left in (0..10).rev() {
            let taken = spend(&eves, db).await;
            assert_eq!((taken.refused(), taken.standing.remaining), (false, left));
        }
        for _ in 0..3 {
            let refused = spend(&eves, db).await;
            assert_eq!((refused.refused(), refused.retry_after()), (true, 60), "a refusal spends nothing");
        }
        // One given back is one more, and none when it is not given back after all.
        for count in [1, 3] {
            for _ in 0..count {
                give_back(&eves, db, false).await;
                give_back(&eves, db, true).await;
            }
            for _ in 0..count {
                assert!(!spend(&eves, db).await.refused());
            }
            assert!(spend(&eves, db).await.refused());
        }
        // Nobody gains anything by giving back what flowed in by itself, or was never spent.
        clock.advance(20 * MINUTE);
        assert!(!spend(&eves, db).await.refused());
        clock.advance(MINUTE / 2);
        for _ in 0..5 {
            give_back(&eves, db, false).await;
        }
        for _ in 0..10 {
            assert!(!spend(&eves, db).await.refused());
        }
        assert!(spend(&eves, db).await.refused());
    }
}

on_both! {
    async fn what_is_stored_is_two_numbers_for_a_slot_and_goes_when_it_counts_no_more(bare: &Bare) {
        const SUBJECTS: usize = 2_000;
        let (db, clock) = (&bare.db, &bare.clock);
        let file = db.kind() == Kind::Sqlite;
        let before = if file { number(db, &FILE_SIZE).await } else { 0 };
        let hidden = secret();
        let ours = server(rule(10, 10), Shared::Database(db.clone()), &hidden, clock);
        let network = |n: usize| {
            let ours = ours.clone();
            async move { take(&ours, format!("203.0.{}.{}", n / 250, n % 250).as_bytes()).await }
        };
        assert_eq!(at_once(SUBJECTS, network).await, SUBJECTS);
        let keys = stored(db).await;
        assert!((SUBJECTS - 20..=SUBJECTS).contains(&keys.len()), "{} rows for {SUBJECTS}", keys.len());
        let size = if file {
            (number(db, &FILE_SIZE).await - before) / i64::try_from(keys.len()).unwrap()
        } else {
            number(db, &ROW_SIZE).await
        };
        assert!((8..100).contains(&size), "a row takes {size} bytes");
        // All of them are slots of the one limit: whatever comes, there are no more than 2^22.
        let limits = |keys: &[i64]| keys.iter().map(|key| key >> 22).collect::<BTreeSet<_>>().len();
        assert_eq!(limits(&keys), 1);
        // The same subjects are the same slots, and under another secret they are others: a row says nothing of whom it
        // is about.
        assert_eq!(at_once(SUBJECTS, network).await, SUBJECTS);
        assert_eq!(stored(db).await, keys);
        let theirs = server(rule(10, 10), Shared::Database(db.clone()), &secret(), clock);
        take(&theirs, b"203.0.0.1").await;
        assert_eq!(limits(&stored(db).await), 2);

        // The sweep takes what counts for nothing any more, batch by batch, and leaves what does.
        clock.advance(2 * MINUTE);
        assert_eq!(take(&ours, b"ada").await.standing.remaining, 9);
        clock.advance(MINUTE / 2);
        let (now, mut batches) = (clock.now(), 0);
        while db.write(move |tx| sweep(tx, now)).await.unwrap() {
            batches += 1;
        }
        assert!(batches >= 3, "{SUBJECTS} at once would hold up everybody");
        // Where two subjects share a slot, what they did together counts for longer.
        let shared = SUBJECTS - keys.len();
        assert!((1..=1 + shared).contains(&stored(db).await.len()), "{shared} slots are shared");
        let there = server(rule(10, 10), Shared::Database(bare.elsewhere().await), &hidden, clock);
        assert_eq!(take(&there, b"ada").await.standing.remaining, 8, "hers was left");
        assert_eq!(take(&ours, b"203.0.0.1").await.standing.remaining, 9);
    }
}

on_both! {
    async fn whoever_does_little_is_no_work_for_the_database(bare: &Bare) {
        let (secret, dbs) = (secret(), [bare.db.clone(), bare.elsewhere().await]);
        let lazy = Rule { lazy: true, ..rule(120, 1) };
        let both = dbs.clone().map(|db| server(lazy, Shared::Database(db), &secret, &bare.clock));
        let asked = || dbs.iter().flat_map(Db::observed).collect::<Vec<_>>();
        dbs.iter().for_each(Db::observe);
        for _ in 0..2 {
            for server in &both {
                for left in (90..120).rev() {
                    let taken = take(server, b"a session").await;
                    assert_eq!((taken.refused(), taken.standing.remaining), (false, left));
                }
            }
            assert!(asked().is_empty(), "a quarter of it is nobody's business");
            // From then on they share: the further server lets through a quarter more, and no more than that.
            let mut allowed = 0;
            for n in 0..200 {
                allowed += usize::from(!take(&both[n % 2], b"a session").await.refused());
            }
            assert_eq!(allowed, 90);
            let questions = asked();
            assert!(questions.iter().all(|question| question[0] == "TAKE"), "{questions:?}");
            assert!((90..=92).contains(&questions.len()), "whoever is over it asks no more: {}", questions.len());
            // When all of it has flowed in it is as in the beginning.
            bare.clock.advance(2 * MINUTE);
        }
        // The trap: a limit that is not lazy asks for the first one.
        take(&server(rule(120, 1), Shared::Database(bare.db.clone()), &secret, &bare.clock), b"ada").await;
        assert_eq!(asked().len(), 1);
    }
}

on_both! {
    async fn a_limit_that_is_off_asks_nothing_and_one_that_reports_stops_nobody(bare: &Bare) {
        let secret = secret();
        let with = |mode: Mode| {
            server(Rule { mode, ..rule(2, 10) }, Shared::Database(bare.db.clone()), &secret, &bare.clock)
        };
        let (off, report, on) = (with(Mode::Off), with(Mode::Report), with(Mode::On));
        bare.db.observe();
        for _ in 0..5 {
            assert_eq!(off.take(TRIES, b"ada").await.unwrap(), None);
            assert_eq!(on.take("a limit that nobody set", b"ada").await.unwrap(), None);
        }
        assert!(bare.db.observed().is_empty());
        let inner = off.clone();
        let spent = bare.db.write(move |tx| {
            inner.give_back_in(tx, TRIES, b"ada")?;
            inner.take_in(tx, TRIES, b"ada")
        });
        assert_eq!(spent.await.unwrap(), None);
        assert!(bare.db.observed().iter().all(Vec::is_empty), "in a transaction, too");

        for n in 0..5 {
            let taken = take(&report, b"ada").await;
            assert_eq!((taken.standing.allowed, taken.refused()), (n < 2, false), "{n}");
        }
        // What was reported is counted as it would be: whoever turns it on finds it.
        assert!(take(&on, b"ada").await.refused());
        assert_eq!(stored(&bare.db).await.len(), 1);
    }
}
