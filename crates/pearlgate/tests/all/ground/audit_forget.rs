//! Everything of a chain goes, and the chain stays whole.

use std::time::Duration;

use foundation::audit::{self, Checkpoint, Event, Stream, Trail, Verdict};
use foundation::kernel::Entropy;
use serde_json::json;

use crate::on_both;
use crate::support::{Bare, together};

const DAY: Duration = Duration::from_secs(86_400);

async fn write(bare: &Bare, stream: &str, kind: &'static str, count: u32) {
    let (trail, stream) = (Trail::new(bare.clock.clone(), Entropy::System), Stream::named(stream));
    let written = bare.db.write(move |tx| {
        for number in 0..count {
            let details = json!({ "number": number });
            let event = Event { kind, actor: "usr_test".into(), address: "192.0.2.1".into(), details };
            trail.record(tx, &stream, &event)?;
        }
        Ok(())
    });
    written.await.unwrap();
}

async fn forget(bare: &Bare, stream: &str) -> u64 {
    let stream = Stream::named(stream);
    bare.db.write(move |tx| audit::forget(tx, &stream)).await.unwrap()
}

async fn mark(bare: &Bare) -> Checkpoint {
    let mut text = String::new();
    let written = audit::checkpoint(&bare.db, bare.clock.now(), |line| {
        text.push_str(line);
        text.push('\n');
        Ok(())
    });
    written.await.unwrap();
    Checkpoint::read(text.as_bytes()).unwrap()
}

async fn numbers(bare: &Bare, stream: &str) -> Vec<i64> {
    let left = audit::list(&bare.db, &Stream::named(stream), i64::MAX, u16::MAX).await.unwrap();
    left.iter().map(|event| event.seq).collect()
}

on_both! {
    async fn a_chain_that_is_forgotten_goes_on_from_where_it_was(bare: &Bare) {
        write(bare, "ada", "tested", 5).await;
        write(bare, "ben", "tested", 3).await;
        assert_eq!(forget(bare, "nobody").await, 0);
        let early = mark(bare).await;
        write(bare, "ada", "tested", 2).await;
        let late = mark(bare).await;
        assert_eq!(forget(bare, "ada").await, 7);
        assert_eq!((numbers(bare, "ada").await, numbers(bare, "ben").await.len()), (vec![], 3));
        for against in [None, Some(early.clone()), Some(late.clone())] {
            let checked = audit::verify_all(&bare.db, against, |_| ()).await.unwrap();
            assert!(checked.is_whole(), "with nothing left: {checked:?}");
            assert_eq!((checked.events, checked.removed), (3, 7));
        }

        // What comes after it has the next number, and holds.
        write(bare, "ada", "forgotten", 1).await;
        assert_eq!(numbers(bare, "ada").await, [8]);
        for against in [None, Some(early), Some(late)] {
            let checked = audit::verify_all(&bare.db, against, |_| ()).await.unwrap();
            assert!(checked.is_whole(), "{checked:?}");
        }
        assert_eq!(audit::verify(&bare.db, &Stream::named("ada")).await.unwrap(), Verdict::Whole);
        assert_eq!(forget(bare, "ada").await, 1, "once more");
        write(bare, "ada", "forgotten", 1).await;

        // Old events go as ever, and the newest stays.
        write(bare, "ada", "tested", 2).await;
        bare.clock.advance(DAY);
        write(bare, "ada", "tested", 1).await;
        let now = bare.clock.now();
        bare.db.write(move |tx| audit::prune(tx, now)).await.unwrap();
        assert_eq!(numbers(bare, "ada").await, [12]);
        assert!(audit::verify_all(&bare.db, None, |_| ()).await.unwrap().is_whole());

        // The trap: what somebody removes who forgets to say so is found.
        bare.db.batch("DELETE FROM audit_events WHERE stream = 'ben'".into()).await.unwrap();
        assert!(!audit::verify_all(&bare.db, None, |_| ()).await.unwrap().is_whole());
    }
}

on_both! {
    async fn whoever_writes_meanwhile_writes_before_or_after(bare: &Bare) {
        write(bare, "ada", "tested", 50).await;
        let writing = (0..20).map(|_| async {
            write(bare, "ada", "tested", 3).await;
            0_u64
        });
        let mut all: Vec<std::pin::Pin<Box<dyn Future<Output = u64> + '_>>> = Vec::new();
        for (n, one) in writing.enumerate() {
            all.push(Box::pin(one));
            if n % 5 == 0 {
                all.push(Box::pin(forget(bare, "ada")));
            }
        }
        let gone: u64 = together(all).await.into_iter().sum();
        let left = numbers(bare, "ada").await.len() as u64;
        assert_eq!(gone + left, 110);
        assert_eq!(audit::verify(&bare.db, &Stream::named("ada")).await.unwrap(), Verdict::Whole);
    }
}
