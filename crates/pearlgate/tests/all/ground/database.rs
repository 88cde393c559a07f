use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use foundation::db::Error;
use foundation::params;

use crate::both;
use crate::support::{Engine, TestApp};

foundation::statements! {
    PUT = "INSERT INTO pearls (id, size) VALUES ($1, $2)";
    // $2 stands before $1: SQLite numbers by appearance, we by number.
    GROW = "UPDATE pearls SET size = $2 WHERE id = $1";
    ADD = "UPDATE pearls SET size = size + 1 WHERE id = $1";
    GET = "SELECT size FROM pearls WHERE id = $1";
    ALL = "SELECT id, size FROM pearls ORDER BY id";
    // Less than a statement may take; three of them are more than a caller waits for.
    FROZEN = "SELECT CAST(1 AS BIGINT) FROM pg_sleep(3.5)";
    OPEN = "SELECT COUNT(*) FROM pg_stat_activity
        WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()";
    WRONG = "INSERT INTO pearls (id, size) VALUES ($1, $1)";
}

async fn pearls(app: &TestApp) {
    let sql = if app.database_url().is_none() {
        "CREATE TABLE pearls (id TEXT NOT NULL PRIMARY KEY, size INTEGER NOT NULL) STRICT"
    } else {
        "CREATE TABLE pearls (id TEXT COLLATE \"C\" NOT NULL PRIMARY KEY, size BIGINT NOT NULL)"
    };
    app.sql(sql).await;
}

async fn all(app: &TestApp) -> Vec<(String, i64)> {
    app.app.db.read(|tx| tx.all(&ALL, &[])).await.unwrap()
}

both! {
    async fn parameters_are_bound_by_their_number(app: &TestApp) {
        pearls(app).await;
        app.app.db.write(|tx| {
            tx.execute(&PUT, params!["a", 1i64])?;
            tx.execute(&GROW, params!["a", 7i64])
        }).await.unwrap();
        assert_eq!(all(app).await, [("a".to_owned(), 7)]);
        let too_few = app.app.db.write(|tx| tx.execute(&PUT, params!["a"])).await;
        assert!(matches!(too_few, Err(Error::Bug(_))), "{too_few:?}");
    }
}

both! {
    async fn a_transaction_that_fails_takes_nobody_with_it(app: &TestApp) {
        pearls(app).await;
        let tasks: Vec<_> = (0..40i64).map(|n| {
            let db = app.app.db.clone();
            tokio::spawn(async move {
                db.write(move |tx| {
                    tx.execute(&PUT, params![format!("{n:02}"), n])?;
                    match n % 4 {
                        1 => Err(Error::Bug("changed my mind".into())),
                        2 => panic!("a bug in a closure"),
                        3 => tx.execute(&PUT, params![format!("{n:02}"), n]).map(|_| ()),
                        _ => Ok(()),
                    }
                }).await
            })
        }).collect();
        let mut stored = 0;
        for task in tasks {
            stored += usize::from(task.await.unwrap().is_ok());
        }
        assert_eq!(stored, 10);
        assert!(all(app).await.iter().all(|(_, n)| n % 4 == 0));
        assert_eq!(all(app).await.len(), 10);
    }
}

both! {
    async fn a_swallowed_error_still_dooms_the_transaction(app: &TestApp) {
        pearls(app).await;
        let swallowed = app.app.db.write(|tx| {
            tx.execute(&PUT, params!["a", 1i64])?;
            let _ = tx.execute(&PUT, params!["a", 2i64]);
            Ok(())
        }).await;
        assert!(matches!(swallowed, Err(Error::Bug(_))), "{swallowed:?}");
        assert!(all(app).await.is_empty(), "PostgreSQL would roll back in silence, SQLite would commit the rest");
    }
}

both! {
    async fn nothing_can_be_awaited_inside_a_transaction(app: &TestApp) {
        // A synchronous closure cannot await; what is left is to block on a runtime, and there is none to block on.
        let reachable = app.app.db.write(|_| Ok(tokio::runtime::Handle::try_current().is_ok())).await.unwrap();
        assert!(!reachable, "a hash, a mail or a web call could stand inside a transaction");
        let blocked = app.app.db.write(|_| {
            tokio::runtime::Handle::current().block_on(async {});
            Ok(())
        }).await;
        assert!(blocked.is_err());
        assert!(app.app.db.ready().await, "and the database thread lives on");
    }
}

both! {
    async fn reading_does_not_write_and_one_is_one(app: &TestApp) {
        pearls(app).await;
        assert!(app.app.db.read(|tx| tx.execute(&PUT, params!["a", 1i64])).await.is_err());
        assert!(app.app.db.scan(|tx| tx.execute(&PUT, params!["b", 1i64])).await.is_err());
        let two = app.app.db.read_one(|tx| {
            tx.opt::<(i64,)>(&GET, params!["a"])?;
            tx.opt::<(i64,)>(&GET, params!["a"])
        }).await;
        assert!(two.unwrap_err().to_string().contains("second statement"));
        app.app.db.write_one(|tx| tx.execute(&PUT, params!["c", 1i64])).await.unwrap();
        assert_eq!(all(app).await.len(), 1);
        let narrow = app.app.db.read_one(|tx| tx.opt::<(i64, i64)>(&GET, params!["c"])).await;
        assert!(narrow.unwrap_err().to_string().contains("columns"), "a row read as another shape is noticed");
    }
}

both! {
    async fn no_update_is_lost(app: &TestApp) {
        pearls(app).await;
        app.app.db.write(|tx| tx.execute(&PUT, params!["a", 0i64])).await.unwrap();
        let tasks: Vec<_> = (0..100).map(|_| {
            let db = app.app.db.clone();
            tokio::spawn(async move { db.write(|tx| tx.execute(&ADD, params!["a"])).await.unwrap() })
        }).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(all(app).await, [("a".to_owned(), 100)]);
    }
}

both! {
    async fn transactions_that_block_each_other_are_run_again(app: &TestApp) {
        pearls(app).await;
        app.app.db.write(|tx| {
            tx.execute(&PUT, params!["a", 0i64])?;
            tx.execute(&PUT, params!["b", 0i64])
        }).await.unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        // Few: PostgreSQL takes a second to notice each deadlock, and a statement may wait five.
        let tasks: Vec<_> = (0..4).map(|n| {
            let (db, runs) = (app.app.db.clone(), runs.clone());
            // Opposite orders: on PostgreSQL a deadlock that one of them loses.
            let (first, second) = if n % 2 == 0 { ("a", "b") } else { ("b", "a") };
            tokio::spawn(async move {
                db.write(move |tx| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    tx.execute(&ADD, params![first])?;
                    tx.execute(&ADD, params![second])
                }).await.unwrap()
            })
        }).collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(all(app).await, [("a".to_owned(), 4), ("b".to_owned(), 4)]);
        assert!(runs.load(Ordering::SeqCst) >= 4);
    }
}

both! {
    async fn types_that_do_not_fit_are_refused(app: &TestApp) {
        pearls(app).await;
        assert!(app.app.db.write(|tx| tx.execute(&WRONG, params!["text"])).await.is_err());
        assert!(app.app.db.write(|tx| tx.execute(&PUT, params![1i64, 1i64])).await.is_err() || app.database_url().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_its_caller_was_told_was_not_done_is_not_done_on_postgres() {
    let app = TestApp::start(Engine::Postgres).await;
    pearls(&app).await;
    app.quiet().await;
    let slow = app.app.db.write(|tx| {
        tx.execute(&PUT, params!["a", 1i64])?;
        (0..3).try_for_each(|_| tx.one::<(i64,)>(&FROZEN, &[]).map(|_| ()))
    });
    let told = slow.await;
    assert!(matches!(&told, Err(Error::Unavailable(_))), "{told:?}");
    let open = || async { app.app.db.read_one(|tx| tx.one::<(i64,)>(&OPEN, &[])).await.unwrap().0 };
    app.until("it is over", || async { open().await == 0 }).await;
    assert_eq!(all(&app).await, []);
    app.finish().await;
}
