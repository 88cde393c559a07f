//! The whole trail: whatever was done to it is found, old events go, everything can be taken out and looked through.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use data_encoding::HEXLOWER;
use foundation::audit::{self, Checked, Checkpoint, Event, Filter, Stream, Trail, Verdict};
use foundation::kernel::{Entropy, Timestamp, sha256};
use serde_json::{Value, json};

use crate::support::{Bare, PASSWORD, START};
use crate::{both_with, on_both};

const DAY: Duration = Duration::from_secs(86_400);
const MICRO: Duration = Duration::from_micros(1);

fn event(kind: &'static str, actor: &str, number: u32) -> Event {
    Event { kind, actor: actor.into(), address: "192.0.2.1".into(), details: json!({ "number": number }) }
}

fn trail(bare: &Bare) -> Trail {
    Trail::new(bare.clock.clone(), Entropy::System)
}

/// One event.
async fn record(bare: &Bare, stream: &str, event: Event) {
    let (trail, stream) = (trail(bare), Stream::named(stream));
    bare.db.write(move |tx| trail.record(tx, &stream, &event)).await.unwrap();
}

/// So many events of one moment.
async fn write(bare: &Bare, stream: &str, count: u32) {
    for start in (0..count).step_by(250) {
        let (trail, stream) = (trail(bare), Stream::named(stream));
        let numbers = start..count.min(start + 250);
        let written = bare.db.write(move |tx| {
            for number in numbers.clone() {
                trail.record(tx, &stream, &event("tested", "usr_test", number))?;
            }
            Ok(())
        });
        written.await.unwrap();
    }
}

async fn all(bare: &Bare, against: Option<Checkpoint>) -> Checked {
    audit::verify_all(&bare.db, against, |_| ()).await.unwrap()
}

async fn one(bare: &Bare, stream: &str) -> Verdict {
    audit::verify(&bare.db, &Stream::named(stream)).await.unwrap()
}

fn places(checked: &Checked) -> Vec<(&str, i64)> {
    checked.broken.iter().map(|broken| (broken.stream.as_str(), broken.at)).collect()
}

async fn prune(bare: &Bare, before: Timestamp) -> bool {
    bare.db.write(move |tx| audit::prune(tx, before)).await.unwrap()
}

/// The numbers of a chain that are left, newest first.
async fn numbers(bare: &Bare, stream: &str) -> Vec<i64> {
    let left = audit::list(&bare.db, &Stream::named(stream), i64::MAX, u16::MAX).await.unwrap();
    left.iter().map(|event| event.seq).collect()
}

fn bytes(bare: &Bare, hex: &str) -> String {
    if bare.url.is_none() { format!("X'{hex}'") } else { format!("CAST('\\x{hex}' AS BYTEA)") }
}

async fn mark(bare: &Bare) -> (String, Checkpoint) {
    let mut text = String::new();
    let written = audit::checkpoint(&bare.db, bare.clock.now(), |line| {
        text.push_str(line);
        text.push('\n');
        Ok(())
    });
    written.await.unwrap();
    let read = Checkpoint::read(text.as_bytes()).unwrap();
    (text, read)
}

on_both! {
    async fn whatever_is_changed_of_an_event_is_found_where_it_is(bare: &Bare) {
        let zeros = "00".repeat(32);
        let changes = [
            ("seq", "seq = 33".to_owned()),
            ("id", format!("id = {}", bytes(bare, &zeros[..32]))),
            ("id_cut", format!("id = {}", bytes(bare, "00"))),
            ("at", "at = at + 1".to_owned()),
            ("kind", "kind = 'untested'".to_owned()),
            ("actor", "actor = ''".to_owned()),
            ("address", "address = '192.0.2.9'".to_owned()),
            ("details", "details = '{\"number\":2 }'".to_owned()),
            ("hash", format!("hash = {}", bytes(bare, &zeros))),
            ("hash_cut", format!("hash = {}", bytes(bare, "00"))),
        ];
        write(bare, "untouched", 5).await;
        for (part, change) in &changes {
            write(bare, part, 5).await;
            assert_eq!(one(bare, part).await, Verdict::Whole);
            let change = format!("UPDATE audit_events SET {change} WHERE stream = '{part}' AND seq = 3");
            bare.db.batch(change).await.unwrap();
            assert_eq!(one(bare, part).await, Verdict::BrokenAt(3), "{part}");
        }
        let checked = all(bare, None).await;
        let mut expected: Vec<(&str, i64)> = changes.iter().map(|(part, _)| (*part, 3)).collect();
        expected.sort_unstable();
        assert_eq!(places(&checked), expected);
        assert_eq!((checked.streams, checked.events), (11, 55));

        // Whoever looks through it sees it all the same.
        let damaged = Filter { stream: Some(Stream::named("id_cut")), ..Filter::default() };
        let found = audit::search(&bare.db, &damaged, i64::MAX, 50).await.unwrap().items;
        assert_eq!(found.len(), 5);
        assert_eq!(found[2].recorded.id.to_string(), "evt_00000000000000000000000000000000");
    }
}

on_both! {
    async fn whatever_is_missing_moved_or_added_is_found(bare: &Bare) {
        let events = "audit_events WHERE stream =";
        let cases = [
            ("first", format!("DELETE FROM {events} 'first' AND seq = 1"), 1),
            ("middle", format!("DELETE FROM {events} 'middle' AND seq = 3"), 3),
            ("last", format!("DELETE FROM {events} 'last' AND seq = 5"), 5),
            ("all", format!("DELETE FROM {events} 'all'"), 1),
            ("head", "DELETE FROM audit_streams WHERE stream = 'head'".to_owned(), 6),
            ("head_back", "UPDATE audit_streams SET seq = 4 WHERE stream = 'head_back'".to_owned(), 5),
            ("head_on", "UPDATE audit_streams SET seq = 6 WHERE stream = 'head_on'".to_owned(), 6),
            (
                "head_other",
                format!("UPDATE audit_streams SET hash = (SELECT hash FROM {events} 'head_other' AND seq = 4)
                    WHERE stream = 'head_other'"),
                6,
            ),
            (
                "swapped",
                "UPDATE audit_events SET seq = 99 WHERE stream = 'swapped' AND seq = 2;
                    UPDATE audit_events SET seq = 2 WHERE stream = 'swapped' AND seq = 3;
                    UPDATE audit_events SET seq = 3 WHERE stream = 'swapped' AND seq = 99".to_owned(),
                2,
            ),
            ("before", "UPDATE audit_events SET seq = 0 WHERE stream = 'before' AND seq = 1".to_owned(), 0),
            (
                "still_there",
                format!("INSERT INTO audit_bases (stream, seq, hash) SELECT stream, seq, hash FROM {events} 'still_there' AND seq = 2"),
                1,
            ),
            (
                "wrong_base",
                format!("INSERT INTO audit_bases (stream, seq, hash) SELECT stream, 1, hash FROM {events} 'wrong_base' AND seq = 2;
                    DELETE FROM {events} 'wrong_base' AND seq = 1"),
                2,
            ),
            (
                "giver",
                "UPDATE audit_events SET stream = 'taker', seq = 6 WHERE stream = 'giver' AND seq = 5".to_owned(),
                5,
            ),
            (
                "copied",
                format!("INSERT INTO audit_events (stream, seq, id, at, kind, actor, address, details, hash)
                    SELECT 'copy', seq, id, at, kind, actor, address, details, hash FROM {events} 'copied' AND seq = 1;
                    DELETE FROM {events} 'copied' AND seq = 1"),
                1,
            ),
            (
                "renamed",
                "UPDATE audit_events SET stream = 'renamed_to' WHERE stream = 'renamed';
                    UPDATE audit_streams SET stream = 'renamed_to' WHERE stream = 'renamed'".to_owned(),
                1,
            ),
        ];
        write(bare, "taker", 5).await;
        for (stream, damage, at) in &cases {
            write(bare, stream, 5).await;
            bare.db.batch(damage.clone()).await.unwrap();
            // Nothing is left under that name, and that is whole: what it is called now is not.
            let expected = if *stream == "renamed" { Verdict::Whole } else { Verdict::BrokenAt(*at) };
            assert_eq!(one(bare, stream).await, expected, "{stream}");
        }
        let checked = all(bare, None).await;
        let found: BTreeSet<(&str, i64)> = places(&checked).into_iter().collect();
        let mut expected: BTreeSet<(&str, i64)> =
            cases.iter().filter(|(stream, ..)| *stream != "renamed").map(|(stream, _, at)| (*stream, *at)).collect();
        expected.extend([("taker", 6), ("copy", 1), ("renamed_to", 1)]);
        assert_eq!(found, expected, "{checked:?}");
        assert_eq!(checked.broken.len(), expected.len());
    }
}

on_both! {
    async fn a_chain_that_was_made_anew_is_found_with_a_checkpoint_alone(bare: &Bare) {
        for stream in ["ada", "ben", "cleo", "dan"] {
            write(bare, stream, 5).await;
        }
        let (_, before) = mark(bare).await;
        write(bare, "dan", 2).await;
        write(bare, "eve", 2).await;
        assert!(all(bare, Some(before.clone())).await.is_whole(), "what went on since then is as it should be");

        // Whoever can write to the database can do everything that we do.
        for (stream, count) in [("ada", 7), ("ben", 0), ("cleo", 3)] {
            let gone = format!("DELETE FROM audit_events WHERE stream = '{stream}'; DELETE FROM audit_streams WHERE stream = '{stream}'");
            bare.db.batch(gone).await.unwrap();
            write(bare, stream, count).await;
        }
        assert!(all(bare, None).await.is_whole(), "by themselves they look as if nothing had happened");
        let checked = all(bare, Some(before)).await;
        assert_eq!(places(&checked), [("ada", 5), ("cleo", 5), ("ben", 5)]);
        let words: Vec<&str> = checked.broken.iter().map(|broken| broken.what.as_str()).collect();
        assert!(words[0].contains("does not go on from the checkpoint"), "{words:?}");
        assert!(words[1].contains("ends before") && words[2].contains("missing"), "{words:?}");
    }
}

on_both! {
    async fn a_checkpoint_that_was_touched_is_refused(bare: &Bare) {
        write(bare, "ada", 2).await;
        write(bare, "ben", 3).await;
        let (text, read) = mark(bare).await;
        assert_eq!(read.at, START);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let first: Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!((first["stream"].as_str(), first["seq"].as_i64()), (Some("ada"), Some(2)));
        let last: Value = serde_json::from_str(lines[2]).unwrap();
        let digest = sha256(format!("{}\n{}\n", lines[0], lines[1]).as_bytes());
        assert_eq!(last["digest"], HEXLOWER.encode(digest.as_bytes()), "as sha256sum says it");
        assert_eq!(last["streams"], 2);
        for touched in [
            String::new(),
            lines[..2].join("\n"),
            lines[1..].join("\n"),
            lines[2].to_owned(),
            text.replace("\"seq\":2", "\"seq\":1"),
            text.replace("ada", "adb"),
            format!("{text}{}", lines[2]),
            format!("{}\n{text}", lines[0]),
            format!("not json\n{text}"),
        ] {
            let refused = Checkpoint::read(touched.as_bytes()).map(|_| ());
            assert!(refused.is_err_and(|e| e.to_string().contains("not a whole checkpoint")), "{touched}");
        }
    }
}

on_both! {
    async fn what_is_old_goes_and_its_chain_stays_whole(bare: &Bare) {
        write(bare, "ben", 1).await;
        for _ in 0..10 {
            write(bare, "ada", 1).await;
            bare.clock.advance(DAY);
        }
        let (_, before) = mark(bare).await;
        assert!(!prune(bare, START + DAY * 6).await);
        assert_eq!(numbers(bare, "ada").await, [10, 9, 8, 7]);
        let checked = all(bare, Some(before.clone())).await;
        assert!(checked.is_whole(), "{checked:?}");
        assert_eq!((checked.streams, checked.events, checked.removed), (2, 5, 6));
        assert!(!prune(bare, START + DAY * 6).await);

        // The newest of each stays, until there is a newer one.
        assert!(!prune(bare, bare.clock.now()).await);
        assert_eq!((numbers(bare, "ada").await, numbers(bare, "ben").await), (vec![10], vec![1]));
        write(bare, "ada", 2).await;
        bare.clock.advance(DAY);
        assert!(!prune(bare, bare.clock.now()).await);
        assert_eq!(numbers(bare, "ada").await, [12]);
        write(bare, "ada", 2).await;
        let checked = all(bare, Some(before)).await;
        assert!(checked.is_whole(), "its base is later than the checkpoint: {checked:?}");
        assert_eq!((checked.events, checked.removed), (4, 11));

        bare.db.batch("UPDATE audit_events SET kind = 'untested' WHERE seq = 13".into()).await.unwrap();
        assert_eq!(places(&all(bare, None).await), [("ada", 13)]);
        bare.db.batch("DELETE FROM audit_bases".into()).await.unwrap();
        assert_eq!(places(&all(bare, None).await), [("ada", 1)]);
    }
}

on_both! {
    async fn nothing_goes_out_of_a_chain_but_its_beginning(bare: &Bare) {
        for days in [5, 1, 2] {
            // Clocks are put right, also backwards.
            bare.clock.set(START + DAY * days);
            write(bare, "ada", 1).await;
        }
        assert!(!prune(bare, START + DAY * 3).await);
        assert_eq!(numbers(bare, "ada").await, [3, 2, 1], "what is behind a younger one waits for it");
        assert!(!prune(bare, START + DAY * 6).await);
        assert_eq!(numbers(bare, "ada").await, [3]);
        assert!(all(bare, None).await.is_whole());

        // What does not hold stays for whoever looks into it.
        write(bare, "ben", 5).await;
        bare.db.batch("UPDATE audit_events SET actor = '' WHERE stream = 'ben' AND seq = 2".into()).await.unwrap();
        assert!(!prune(bare, START + DAY * 30).await);
        assert_eq!(numbers(bare, "ben").await, [5, 4, 3, 2]);
        assert_eq!(places(&all(bare, None).await), [("ben", 2)]);
    }
}

on_both! {
    async fn much_goes_in_batches_and_long_chains_are_read_in_pages(bare: &Bare) {
        write(bare, "ada", 2_300).await;
        let (trail, streams) = (trail(bare), 1_100);
        for start in (0..streams).step_by(100) {
            let trail = trail.clone();
            let written = bare.db.write(move |tx| {
                for stream in start..start + 100 {
                    trail.record(tx, &Stream::named(&format!("s{stream:04}")), &event("tested", "", 0))?;
                }
                Ok(())
            });
            written.await.unwrap();
        }
        let mut heard = Vec::new();
        let checked = audit::verify_all(&bare.db, None, |streams| heard.push(streams)).await.unwrap();
        assert!(checked.is_whole(), "{checked:?}");
        assert_eq!((checked.streams, checked.events), (1_101, 3_400));
        assert!(heard.len() > 3 && heard.is_sorted() && heard.last() == Some(&1_101), "{heard:?}");
        bare.db.batch("UPDATE audit_events SET kind = 'x' WHERE (stream = 'ada' AND seq = 2222) OR stream = 's1077'".into()).await.unwrap();
        assert_eq!(places(&all(bare, None).await), [("ada", 2_222), ("s1077", 1)]);
        assert_eq!(one(bare, "ada").await, Verdict::BrokenAt(2_222));
        bare.db.batch("UPDATE audit_events SET kind = 'tested'; DELETE FROM audit_events WHERE stream LIKE 's%'".into()).await.unwrap();
        assert_eq!(places(&all(bare, None).await).len(), 1_000, "more say no more");
        bare.db.batch("DELETE FROM audit_streams WHERE stream LIKE 's%'".into()).await.unwrap();
        assert!(all(bare, None).await.is_whole());

        bare.clock.advance(DAY);
        assert!(prune(bare, bare.clock.now()).await);
        assert_eq!(numbers(bare, "ada").await.len(), 1_800);
        for n in 0..60 {
            write(bare, &format!("t{n}"), 3).await;
        }
        bare.clock.advance(DAY);
        let mut rounds = 0;
        while prune(bare, bare.clock.now()).await {
            rounds += 1;
            assert!(rounds < 50);
        }
        let checked = all(bare, None).await;
        assert!(rounds >= 3 && checked.is_whole(), "{rounds} {checked:?}");
        assert_eq!((checked.events, checked.removed), (61, 2_299 + 60 * 2));
    }
}

on_both! {
    async fn recording_and_pruning_at_the_same_time_keep_every_chain_whole(bare: &Bare) {
        let done = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4).map(|writer| {
            let (db, trail, stream) = (bare.db.clone(), trail(bare), Stream::named(["one", "two"][writer % 2]));
            tokio::spawn(async move {
                for number in 0..50 {
                    let (trail, stream) = (trail.clone(), stream.clone());
                    let written = db.write(move |tx| trail.record(tx, &stream, &event("tested", "", number)));
                    written.await.unwrap();
                }
            })
        }).collect();
        let pruner = tokio::spawn({
            let (db, done) = (bare.db.clone(), done.clone());
            async move {
                while !done.load(Ordering::SeqCst) {
                    db.write(|tx| audit::prune(tx, START + DAY)).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        while !writers.iter().all(|writer| writer.is_finished()) {
            let checked = all(bare, None).await;
            assert!(checked.is_whole(), "{checked:?}");
        }
        for writer in writers {
            writer.await.unwrap();
        }
        done.store(true, Ordering::SeqCst);
        pruner.await.unwrap();
        while prune(bare, START + DAY).await {}
        let checked = all(bare, None).await;
        assert!(checked.is_whole(), "{checked:?}");
        assert_eq!((checked.events, checked.removed), (2, 198));
        assert_eq!((numbers(bare, "one").await, numbers(bare, "two").await), (vec![100], vec![100]));
    }
}

/// A thousand events of one moment in two chains, and then some of which each has its own.
async fn much(bare: &Bare) {
    write(bare, "ada", 400).await;
    write(bare, "ben", 600).await;
    for number in 0..70 {
        bare.clock.advance(MICRO);
        write(bare, "cleo", 1).await;
        if number % 10 == 0 {
            record(bare, "ada", event("suspended", "usr_operator", number)).await;
        }
    }
}

async fn exported(bare: &Bare, filter: &Filter) -> Vec<Value> {
    let mut lines = Vec::new();
    let written = audit::export(&bare.db, filter, |line| {
        lines.push(serde_json::from_str(line).unwrap());
        Ok(())
    });
    let count = written.await.unwrap();
    assert_eq!(count, lines.len() as u64);
    lines
}

on_both! {
    async fn everything_is_written_out_once_and_in_its_order(bare: &Bare) {
        much(bare).await;
        let lines = exported(bare, &Filter::default()).await;
        let places: BTreeSet<(&str, i64)> =
            lines.iter().map(|line| (line["stream"].as_str().unwrap(), line["seq"].as_i64().unwrap())).collect();
        assert_eq!((lines.len(), places.len()), (1_077, 1_077));
        let times: Vec<&str> = lines.iter().map(|line| line["at"].as_str().unwrap()).collect();
        assert!(times.is_sorted());
        for stream in ["ada", "ben", "cleo"] {
            let of = lines.iter().filter(|line| line["stream"] == stream);
            let numbers: Vec<i64> = of.map(|line| line["seq"].as_i64().unwrap()).collect();
            assert!(numbers.iter().zip(1..).all(|(number, expected)| *number == expected), "{stream}");
        }
        let last = lines.iter().rfind(|line| line["kind"] == "suspended").unwrap();
        assert_eq!(last["details"], json!({ "number": 60 }));
        assert_eq!((last["actor"].as_str(), last["address"].as_str()), (Some("usr_operator"), Some("192.0.2.1")));
        assert!(last["id"].as_str().unwrap().starts_with("evt_"));
        assert_eq!(last["hash"].as_str().unwrap().len(), 64);

        let of = |filter: Filter| async move { exported(bare, &filter).await.len() };
        let ada = Some(Stream::named("ada"));
        assert_eq!(of(Filter { stream: ada.clone(), ..Filter::default() }).await, 407);
        assert_eq!(of(Filter { stream: ada, actor: Some("usr_operator".into()), ..Filter::default() }).await, 7);
        assert_eq!(of(Filter { actor: Some("usr_test".into()), ..Filter::default() }).await, 1_070);
        assert_eq!(of(Filter { kind: Some("suspended".into()), ..Filter::default() }).await, 7);
        assert_eq!(of(Filter { actor: Some(String::new()), ..Filter::default() }).await, 0);
        let (since, until) = (Some(START + MICRO), Some(START + MICRO * 11));
        assert_eq!(of(Filter { since, ..Filter::default() }).await, 77);
        assert_eq!(of(Filter { until, ..Filter::default() }).await, 1_011);
        assert_eq!(of(Filter { since, until, ..Filter::default() }).await, 11);
        assert_eq!(of(Filter { stream: Some(Stream::named("cleo")), since, until, ..Filter::default() }).await, 10);
    }
}

/// Every page of a search: how many each had, and everything that was in them.
async fn pages(bare: &Bare, filter: &Filter) -> (Vec<usize>, Vec<(Timestamp, String, i64)>) {
    let (mut sizes, mut found, mut before) = (Vec::new(), Vec::new(), i64::MAX);
    loop {
        let page = audit::search(&bare.db, filter, before, 50).await.unwrap();
        sizes.push(page.items.len());
        found.extend(page.items.into_iter().map(|one| (one.recorded.at, one.stream, one.recorded.seq)));
        let Some(next) = page.next else { return (sizes, found) };
        assert!(next < before, "it goes on and does not turn around");
        before = next;
    }
}

on_both! {
    async fn pages_lose_nothing_of_one_moment_and_show_nothing_twice(bare: &Bare) {
        much(bare).await;
        let (sizes, found) = pages(bare, &Filter::default()).await;
        assert!(found.is_sorted_by(|one, other| one.0 >= other.0), "newest first");
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 1_077);
        assert_eq!(found.len(), 1_077);
        // Fifty, or one more of the same moment; then those of the other moments and a thousand of one.
        assert!(sizes[0] <= 51 && sizes.len() == 2, "{sizes:?}");

        let by = |actor: &str| Filter { actor: Some(actor.to_owned()), ..Filter::default() };
        assert_eq!(pages(bare, &by("usr_operator")).await.1.len(), 7);
        assert_eq!(pages(bare, &by("usr_test")).await.1.len(), 1_070);
        assert_eq!(pages(bare, &by("usr_nobody")).await, (vec![0], vec![]));
        let kind = Filter { kind: Some("suspended".into()), ..Filter::default() };
        assert_eq!(pages(bare, &kind).await.1.len(), 7);
        let ben = Filter { stream: Some(Stream::named("ben")), ..Filter::default() };
        let (sizes, found) = pages(bare, &ben).await;
        assert_eq!(sizes, [50; 12], "of one chain a number is enough to go on from");
        assert!(found.iter().map(|(.., seq)| *seq).eq((1..=600).rev()));
        let few = Filter { since: Some(START + MICRO * 61), ..Filter::default() };
        assert_eq!(pages(bare, &few).await.1.len(), 11);
    }
}

both_with! { true, "[audit]\nkeep = \"30d\"";
    async fn a_server_removes_what_is_older_than_it_is_to_be_kept(app: &TestApp) {
        let ada = app.person("ada@example.com").await;
        app.quiet().await;
        app.clock.advance(DAY * 20);
        assert_eq!(app.login(&ada.email, PASSWORD).await.status, 200);
        app.quiet().await;
        app.clock.advance(DAY * 15);
        app.until("what is old is gone", || async {
            // A turn that was under way when the clock moved plans the next from then.
            app.clock.advance(Duration::from_secs(660));
            audit::verify_all(&app.app.db, None, |_| ()).await.unwrap().removed >= 2
        })
        .await;
        let checked = audit::verify_all(&app.app.db, None, |_| ()).await.unwrap();
        assert!(checked.is_whole(), "{checked:?}");
        let left = audit::list(&app.app.db, &Stream::named(&ada.id), i64::MAX, 100).await.unwrap();
        assert_eq!(left.last().map(|event| (event.seq, event.kind.as_str())), Some((3, "sign_in")));
    }
}
