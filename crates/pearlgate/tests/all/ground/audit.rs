use foundation::audit::{self, Event, Stream, Trail, Verdict};
use foundation::kernel::Entropy;
use serde_json::json;

use crate::on_both;

fn event(kind: &'static str, number: u32) -> Event {
    Event {
        kind,
        actor: "usr_test".into(),
        address: "192.0.2.1".into(),
        details: json!({ "number": number }),
    }
}

async fn write(bare: &crate::support::Bare, stream: &Stream, count: u32) {
    let trail = Trail::new(bare.clock.clone(), Entropy::System);
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let (db, trail, stream) = (bare.db.clone(), trail.clone(), stream.clone());
            tokio::spawn(async move {
                db.write(move |tx| trail.record(tx, &stream, &event("tested", number))).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

on_both! {
    async fn a_chain_holds_under_parallel_writers_and_breaks_where_it_is_touched(bare: &Bare) {
        let stream = Stream::shard("somebody@example.com");
        assert_eq!(audit::verify(&bare.db, &stream).await.unwrap(), Verdict::Whole, "an empty chain is whole");
        write(bare, &stream, 30).await;
        assert_eq!(audit::verify(&bare.db, &stream).await.unwrap(), Verdict::Whole);
        let newest = audit::list(&bare.db, &stream, i64::MAX, 3).await.unwrap();
        assert_eq!(newest.iter().map(|e| e.seq).collect::<Vec<_>>(), [30, 29, 28]);

        for (damage, at) in [
            ("UPDATE audit_events SET details = '{}' WHERE seq = 11", 11),
            ("UPDATE audit_events SET actor = 'usr_other' WHERE seq = 9", 9),
            ("UPDATE audit_events SET at = at + 1 WHERE seq = 7", 7),
            ("DELETE FROM audit_events WHERE seq = 5", 5),
        ] {
            bare.db.batch(damage.into()).await.unwrap();
            assert_eq!(audit::verify(&bare.db, &stream).await.unwrap(), Verdict::BrokenAt(at), "{damage}");
        }
    }
}

on_both! {
    async fn cutting_off_the_end_is_noticed(bare: &Bare) {
        let stream = Stream::shard("somebody@example.com");
        write(bare, &stream, 5).await;
        bare.db.batch("DELETE FROM audit_events WHERE seq = 5".into()).await.unwrap();
        assert_eq!(audit::verify(&bare.db, &stream).await.unwrap(), Verdict::BrokenAt(5));
    }
}

#[test]
fn what_has_no_person_is_spread_over_sixty_four_chains() {
    let shards: std::collections::HashSet<String> =
        (0..5_000).map(|n| Stream::shard(&format!("a{n}@example.com")).name().to_owned()).collect();
    assert_eq!(shards.len(), 64);
}
