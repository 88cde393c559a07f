use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use foundation::db::{Db, Error};
use foundation::jobs::{self, Backoff, Handlers, Job, JobError, Queue, When, Worker};
use foundation::kernel::{Clock, Entropy, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::on_both;
use crate::support::{Bare, START, until};

#[derive(Debug, Serialize, Deserialize)]
struct Polish {
    number: u32,
}
impl Job for Polish {
    const KIND: &'static str = "test.polish";
    const MAX_ATTEMPTS: i64 = 3;
    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(10), longest: Duration::from_secs(40) };
}

foundation::statements! {
    ROWS = "SELECT run_at, attempts, fence, history FROM jobs WHERE kind = 'test.polish' ORDER BY created_at";
    GRAVES = "SELECT reason, attempts, history FROM dead_jobs";
}

const USEFUL: Duration = Duration::from_secs(3_600);
type Runs = Arc<Mutex<HashMap<u32, usize>>>;

fn queue(bare: &Bare) -> Queue {
    Queue::new(bare.clock.clone(), Entropy::System)
}

async fn enqueue(db: &Db, queue: &Queue, numbers: std::ops::Range<u32>, when: When) -> usize {
    let queue = queue.clone();
    db.write(move |tx| {
        let mut taken = 0;
        for number in numbers.clone() {
            taken += usize::from(queue.enqueue(tx, &Polish { number }, &when)?);
        }
        Ok(taken)
    })
    .await
    .unwrap()
}

fn counting(
    runs: &Runs,
    outcome: impl Fn(usize) -> Result<(), JobError> + Clone + Send + Sync + 'static,
) -> Handlers {
    let runs = runs.clone();
    Handlers::default().on(move |job: Polish| {
        let (runs, outcome) = (runs.clone(), outcome.clone());
        async move {
            let times = {
                let mut runs = runs.lock().unwrap();
                let times = runs.entry(job.number).or_insert(0);
                *times += 1;
                *times
            };
            outcome(times)
        }
    })
}

/// A handler whose jobs begin and then wait until they may go on.
fn held(runs: &Runs) -> (Handlers, Arc<Notify>, Arc<Notify>) {
    let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait, count) = (begun.clone(), go_on.clone(), runs.clone());
    let handlers = Handlers::default().on(move |job: Polish| {
        let (tell, wait, count) = (tell.clone(), wait.clone(), count.clone());
        async move {
            *count.lock().unwrap().entry(job.number).or_insert(0) += 1;
            tell.notify_one();
            wait.notified().await;
            Ok(())
        }
    });
    (handlers, begun, go_on)
}

async fn rows(db: &Db) -> Vec<(Timestamp, i64, i64, String)> {
    db.read_one(|tx| tx.all(&ROWS, &[])).await.unwrap()
}

async fn none_wait(bare: &Bare) {
    until("no job waits", || async { rows(&bare.db).await.is_empty() }).await;
}

on_both! {
    async fn a_job_is_there_if_its_transaction_is(bare: &Bare) {
        let queue = queue(bare);
        let inner = queue.clone();
        let failed: Result<(), Error> = bare.db.write(move |tx| {
            inner.enqueue(tx, &Polish { number: 1 }, &When::now(START, USEFUL))?;
            Err(Error::Bug("no".into()))
        }).await;
        assert!(failed.is_err() && rows(&bare.db).await.is_empty());
        enqueue(&bare.db, &queue, 0..3, When::now(START, USEFUL)).await;
        let runs = Runs::default();
        let worker = Worker::start(bare.db.clone(), queue, counting(&runs, |_| Ok(())));
        none_wait(bare).await;
        assert_eq!(*runs.lock().unwrap(), HashMap::from([(0, 1), (1, 1), (2, 1)]));
        worker.stop().await;
    }
}

on_both! {
    async fn a_unique_key_is_kept_by_the_database(bare: &Bare) {
        let queue = queue(bare);
        let when = When::now(START, USEFUL).unique("only one");
        let racing: Vec<_> = (0..20).map(|n| {
            let (db, queue, when) = (bare.db.clone(), queue.clone(), when.clone());
            tokio::spawn(async move { enqueue(&db, &queue, n..n + 1, when).await })
        }).collect();
        let mut taken = 0;
        for one in racing {
            taken += one.await.unwrap();
        }
        assert_eq!((taken, rows(&bare.db).await.len()), (1, 1));
    }
}

on_both! {
    async fn a_failure_is_tried_again_later_and_given_up_with_its_history(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        enqueue(&bare.db, &queue, 0..1, When::now(START, USEFUL)).await;
        let worker = Worker::start(bare.db.clone(), queue, counting(&runs, |times| Err(JobError::Retry(format!("failure {times}")))));
        for attempt in 1..=2 {
            until("it has failed", || async { rows(&bare.db).await.first().is_some_and(|row| row.3.matches("failure").count() == attempt) }).await;
            let (run_at, attempts, ..) = rows(&bare.db).await.remove(0);
            let pause = bare.clock.now().until(run_at).as_secs_f64();
            let full = 10.0 * f64::from(1 << (attempt - 1));
            assert!((full / 2.0..=full).contains(&pause) && attempts == attempt as i64, "attempt {attempt}: {pause} s");
            bare.clock.advance(bare.clock.now().until(run_at));
        }
        none_wait(bare).await;
        let graves: Vec<(String, i64, String)> = bare.db.read_one(|tx| tx.all(&GRAVES, &[])).await.unwrap();
        assert_eq!((graves.len(), graves[0].0.as_str(), graves[0].1), (1, "failure 3", 3));
        assert!((1..=3).all(|n| graves[0].2.contains(&format!("failure {n}"))), "{}", graves[0].2);
        worker.stop().await;
    }
}

on_both! {
    async fn what_has_lost_its_use_is_not_done(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        enqueue(&bare.db, &queue, 0..1, When::now(START, Duration::from_secs(60))).await;
        bare.clock.advance(Duration::from_secs(61));
        let worker = Worker::start(bare.db.clone(), queue, counting(&runs, |_| Ok(())));
        none_wait(bare).await;
        assert!(runs.lock().unwrap().is_empty());
        let graves = jobs::dead(&bare.db).await.unwrap();
        assert_eq!(graves[0].1, "its deadline passed before it was tried");
        worker.stop().await;
    }
}

on_both! {
    async fn what_fails_until_it_has_lost_its_use_is_not_tried_again(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        enqueue(&bare.db, &queue, 0..1, When::now(START, USEFUL)).await;
        let worker = Worker::start(bare.db.clone(), queue, counting(&runs, |_| Err(JobError::Retry("a failure".into()))));
        until("it has failed", || async { rows(&bare.db).await.first().is_some_and(|row| row.3.contains("a failure")) }).await;
        bare.clock.advance(USEFUL + Duration::from_secs(1));
        none_wait(bare).await;
        assert_eq!(*runs.lock().unwrap(), HashMap::from([(0, 1)]));
        let graves = jobs::dead(&bare.db).await.unwrap();
        assert_eq!(graves[0].1, "its deadline passed before it succeeded");
        worker.stop().await;
    }
}

on_both! {
    async fn a_job_waits_for_its_time(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        let later = When::now(START, USEFUL).at(START + Duration::from_secs(100));
        enqueue(&bare.db, &queue, 0..1, later).await;
        enqueue(&bare.db, &queue, 1..2, When::now(START, USEFUL)).await;
        let worker = Worker::start(bare.db.clone(), queue, counting(&runs, |_| Ok(())));
        until("the other one is done", || async { rows(&bare.db).await.len() == 1 }).await;
        assert_eq!(*runs.lock().unwrap(), HashMap::from([(1, 1)]));
        bare.clock.advance(Duration::from_secs(100));
        none_wait(bare).await;
        worker.stop().await;
    }
}

on_both! {
    async fn poison_dies_alone(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        enqueue(&bare.db, &queue, 0..3, When::now(START, USEFUL)).await;
        bare.db.batch("UPDATE jobs SET payload = 'not json' WHERE payload LIKE '%1%'".into()).await.unwrap();
        let handlers = counting(&runs, |_| Ok(()));
        let worker = Worker::start(bare.db.clone(), queue.clone(), handlers);
        none_wait(bare).await;
        assert_eq!(*runs.lock().unwrap(), HashMap::from([(0, 1), (2, 1)]));
        assert!(jobs::dead(&bare.db).await.unwrap()[0].1.contains("cannot be read"));
        worker.stop().await;

        let panicked = Handlers::default().on(|_: Polish| async { panic!("a bug in a handler") });
        enqueue(&bare.db, &queue, 7..8, When::now(START, USEFUL)).await;
        let worker = Worker::start(bare.db.clone(), queue, panicked);
        until("the panic is written down", || async { rows(&bare.db).await.first().is_some_and(|row| row.3.contains("panicked")) }).await;
        worker.stop().await;
    }
}

/// Somebody's transaction on PostgreSQL, that has read and stays open: nothing that is deleted can be cleaned away.
struct OpenTransaction {
    end: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl OpenTransaction {
    fn begin(url: String) -> Self {
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (tell, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT COUNT(*) FROM jobs").unwrap();
            tell.send(()).unwrap();
            let _ = ended.recv();
            client.batch_execute("COMMIT").unwrap();
        });
        begun.recv().unwrap();
        Self { end, thread }
    }

    fn finish(self) {
        let _ = self.end.send(());
        self.thread.join().unwrap();
    }
}

on_both! {
    async fn healthy_jobs_flow_beside_panics_poison_and_a_transaction_that_stays_open(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        let open = bare.url.clone().map(OpenTransaction::begin);
        let handlers = {
            let runs = runs.clone();
            Handlers::default().on(move |job: Polish| {
                let runs = runs.clone();
                async move {
                    if job.number.is_multiple_of(10) {
                        panic!("a bug that some jobs meet");
                    }
                    if job.number % 10 == 1 {
                        return Err(JobError::Retry("somebody is away".into()));
                    }
                    *runs.lock().unwrap().entry(job.number).or_insert(0) += 1;
                    Ok(())
                }
            })
        };
        let worker = Worker::start(bare.db.clone(), queue.clone(), handlers);
        for first in (0..1_000).step_by(100) {
            enqueue(&bare.db, &queue, first..first + 100, When::now(START, USEFUL)).await;
        }
        until("the healthy ones are done", || async { runs.lock().unwrap().len() == 800 }).await;
        assert!(runs.lock().unwrap().values().all(|times| *times == 1));
        // The others come again at their times, and are given up alone.
        for _ in 0..3 {
            bare.clock.advance(Duration::from_secs(60));
            until("nothing is due", || async { rows(&bare.db).await.iter().all(|row| row.0 > bare.clock.now()) }).await;
        }
        none_wait(bare).await;
        assert_eq!(jobs::dead(&bare.db).await.unwrap().len(), 200);
        worker.stop().await;
        open.into_iter().for_each(OpenTransaction::finish);
    }
}

on_both! {
    async fn a_late_worker_changes_nothing(bare: &Bare) {
        // The late one's time stands still with it.
        let (stopped, runs) = (Queue::new(Clock::manual(START), Entropy::System), Runs::default());
        enqueue(&bare.db, &stopped, 0..1, When::now(START, USEFUL)).await;
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait) = (begun.clone(), go_on.clone());
        let stuck = Handlers::default().on(move |_: Polish| {
            let (tell, wait) = (tell.clone(), wait.clone());
            async move {
                tell.notify_one();
                wait.notified().await;
                Err(JobError::Dead("the late one's opinion".into()))
            }
        });
        let late = Worker::start(bare.db.clone(), stopped, stuck);
        begun.notified().await;
        // For everybody else the lease is over: somebody takes the job.
        bare.clock.advance(Duration::from_secs(31));
        let other = Worker::start(bare.elsewhere().await, Queue::new(bare.clock.clone(), Entropy::System), counting(&runs, |_| Ok(())));
        none_wait(bare).await;
        go_on.notify_one();
        late.stop().await;
        other.stop().await;
        assert_eq!(*runs.lock().unwrap(), HashMap::from([(0, 1)]));
        assert!(jobs::dead(&bare.db).await.unwrap().is_empty(), "the fence kept the late one out");
    }
}

on_both! {
    async fn a_lease_of_ones_own_that_ran_out_is_taken_up_again_and_not_begun_again(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        enqueue(&bare.db, &queue, 0..1, When::now(START, USEFUL)).await;
        let (long, begun, go_on) = held(&runs);
        let worker = Worker::start(bare.db.clone(), queue.clone(), long);
        begun.notified().await;
        // As when no heartbeat could be written for a while; the next commit makes the worker look.
        bare.db.batch("UPDATE jobs SET run_at = 0".into()).await.unwrap();
        enqueue(&bare.db, &queue, 1..2, When::now(START, USEFUL).at(START + USEFUL)).await;
        until("it was taken up again", || async { rows(&bare.db).await.iter().any(|row| row.2 == 2) }).await;
        go_on.notify_one();
        until("it is done", || async { rows(&bare.db).await.len() == 1 }).await;
        worker.stop().await;
        assert_eq!(*runs.lock().unwrap(), HashMap::from([(0, 1)]));
    }
}

on_both! {
    async fn no_job_runs_twice_however_many_workers_there_are(bare: &Bare) {
        let runs = Runs::default();
        let here = queue(bare);
        let mut workers = Vec::new();
        for _ in 0..3 {
            let db = bare.elsewhere().await;
            workers.push(Worker::start(db, Queue::new(bare.clock.clone(), Entropy::System), counting(&runs, |_| Ok(()))));
        }
        workers.push(Worker::start(bare.db.clone(), here.clone(), counting(&runs, |_| Ok(()))));
        for batch in 0..10 {
            enqueue(&bare.db, &here, batch * 30..batch * 30 + 30, When::now(START, USEFUL)).await;
        }
        none_wait(bare).await;
        for worker in workers {
            worker.stop().await;
        }
        let runs = runs.lock().unwrap();
        assert_eq!(runs.len(), 300);
        assert!(runs.values().all(|times| *times == 1), "{runs:?}");
    }
}

on_both! {
    async fn a_recurring_job_runs_once_a_turn_among_all_processes(bare: &Bare) {
        let ticks = Arc::new(AtomicUsize::new(0));
        let mut workers = Vec::new();
        for _ in 0..2 {
            let count = ticks.clone();
            let handlers = Handlers::default().on(move |_: Polish| {
                count.fetch_add(1, Ordering::SeqCst);
                async { Ok(()) }
            });
            let handlers = handlers.recurring(&Polish { number: 0 }, Duration::from_secs(60));
            workers.push(Worker::start(bare.elsewhere().await, queue(bare), handlers));
        }
        until("it is planned", || async { rows(&bare.db).await.len() == 1 }).await;
        for turn in 1..=3 {
            bare.clock.advance(Duration::from_secs(60));
            until("it ran and is planned again", || async {
                ticks.load(Ordering::SeqCst) == turn && rows(&bare.db).await.iter().all(|row| row.0 > bare.clock.now() && row.1 == 0)
            }).await;
        }
        for worker in workers {
            worker.stop().await;
        }
        assert_eq!((ticks.load(Ordering::SeqCst), rows(&bare.db).await.len()), (3, 1));
    }
}

on_both! {
    async fn a_stop_waits_for_what_runs(bare: &Bare) {
        let queue = queue(bare);
        enqueue(&bare.db, &queue, 0..1, When::now(START, USEFUL)).await;
        let begun = Arc::new(Notify::new());
        let tell = begun.clone();
        let handlers = Handlers::default().on(move |_: Polish| {
            let tell = tell.clone();
            async move {
                tell.notify_one();
                tokio::time::sleep(Duration::from_millis(100)).await;
                Ok(())
            }
        });
        let worker = Worker::start(bare.db.clone(), queue, handlers);
        begun.notified().await;
        worker.stop().await;
        assert!(rows(&bare.db).await.is_empty(), "it was finished, not thrown away");
    }
}

on_both! {
    async fn a_job_that_runs_long_keeps_its_lease(bare: &Bare) {
        let (here, runs) = (queue(bare), Runs::default());
        enqueue(&bare.db, &here, 0..1, When::now(START, USEFUL)).await;
        let (long, begun, go_on) = held(&runs);
        let worker = Worker::start(bare.db.clone(), here, long);
        begun.notified().await;
        for _ in 0..5 {
            let now = bare.clock.advance(Duration::from_secs(20));
            until("the lease was renewed", || async { rows(&bare.db).await[0].0 == now + Duration::from_secs(30) }).await;
        }
        // Another process that looks now finds nothing that is due.
        let other = Worker::start(bare.elsewhere().await, queue(bare), counting(&runs, |_| Ok(())));
        other.stop().await;
        go_on.notify_one();
        none_wait(bare).await;
        worker.stop().await;
        assert_eq!(*runs.lock().unwrap(), HashMap::from([(0, 1)]));
    }
}

on_both! {
    async fn what_is_urgent_goes_before_a_flood_of_what_is_not(bare: &Bare) {
        let queue = queue(bare);
        assert_eq!(enqueue(&bare.db, &queue, 0..200, When::now(START, USEFUL)).await, 200);
        assert_eq!(enqueue(&bare.db, &queue, 1_000..1_001, When::now(START, USEFUL).urgent()).await, 1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let noted = order.clone();
        let handlers = Handlers::default().on(move |job: Polish| {
            let noted = noted.clone();
            async move {
                noted.lock().unwrap().push(job.number);
                Ok(())
            }
        });
        let worker = Worker::start(bare.db.clone(), queue.clone(), handlers);
        until("all are done", || async { order.lock().unwrap().len() == 201 }).await;
        worker.stop().await;
        // A handful is taken at a time, and run at the same time.
        let place = order.lock().unwrap().iter().position(|number| *number == 1_000).unwrap();
        assert!(place < 16, "the urgent one was the {place}th");
    }
}

async fn put_again(db: &Db, queue: &Queue, number: u32) {
    let queue = queue.clone();
    db.write(move |tx| queue.enqueue_again(tx, &Polish { number }, &When::now(START, USEFUL).unique("one")))
        .await
        .unwrap();
}

on_both! {
    async fn what_is_put_again_while_it_runs_runs_once_more(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        let (handlers, begun, go_on) = held(&runs);
        put_again(&bare.db, &queue, 1).await;
        put_again(&bare.db, &queue, 1).await;
        let worker = Worker::start(bare.db.clone(), queue.clone(), handlers);
        begun.notified().await;
        // However often: what the second run sees is all of it.
        for _ in 0..3 {
            put_again(&bare.db, &queue, 1).await;
        }
        go_on.notify_one();
        begun.notified().await;
        go_on.notify_one();
        none_wait(bare).await;
        assert_eq!(*runs.lock().unwrap(), HashMap::from([(1, 2)]), "once more, and no more than that");
        worker.stop().await;
    }
}

on_both! {
    async fn what_is_not_tried_counts_as_no_attempt(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        enqueue(&bare.db, &queue, 0..1, When::now(START, USEFUL)).await;
        let later = Duration::from_secs(60);
        let worker = Worker::start(bare.db.clone(), queue.clone(), counting(&runs, move |times| {
            if times <= 5 { Err(JobError::Later(later)) } else { Ok(()) }
        }));
        for times in 1..=5 {
            let due = bare.clock.now() + later;
            until("it is put off", || async { rows(&bare.db).await.first().is_some_and(|row| (row.0, row.1) == (due, 0)) }).await;
            assert_eq!(runs.lock().unwrap()[&0], times, "more often than it may be tried");
            assert_eq!(rows(&bare.db).await[0].3, "[]");
            bare.clock.advance(later);
        }
        none_wait(bare).await;
        assert!(jobs::dead(&bare.db).await.unwrap().is_empty());
        worker.stop().await;
    }
}

on_both! {
    async fn what_waits_in_a_lane_is_woken_together(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        enqueue(&bare.db, &queue, 0..3, When::now(START, USEFUL)).await;
        let worker = Worker::start(bare.db.clone(), queue.clone(), counting(&runs, |times| {
            if times == 1 { Err(JobError::Later(Duration::from_secs(3_000))) } else { Ok(()) }
        }));
        until("all are put off", || async {
            rows(&bare.db).await.iter().all(|row| row.0 > START && row.1 == 0)
        }).await;
        let waker = queue.clone();
        assert_eq!(bare.db.write(move |tx| waker.wake(tx, "another lane")).await.unwrap(), 0);
        assert_eq!(rows(&bare.db).await.len(), 3);
        let waker = queue.clone();
        assert_eq!(bare.db.write(move |tx| waker.wake(tx, jobs::MAIN)).await.unwrap(), 3);
        none_wait(bare).await;
        assert_eq!(*runs.lock().unwrap(), HashMap::from([(0, 2), (1, 2), (2, 2)]));
        worker.stop().await;
    }
}

/// A job that waits for somebody else's machine; each machine has a lane of its own.
#[derive(Debug, Serialize, Deserialize)]
struct Call {
    machine: u32,
}
impl Job for Call {
    const KIND: &'static str = "test.call";
    fn lane(&self) -> std::borrow::Cow<'static, str> {
        format!("machine {}", self.machine).into()
    }
}

on_both! {
    async fn whoever_hangs_in_one_lane_holds_up_no_other(bare: &Bare) {
        let (queue, runs) = (queue(bare), Runs::default());
        let called = Arc::new(AtomicUsize::new(0));
        let count = called.clone();
        let handlers = counting(&runs, |_| Ok(())).on(move |call: Call| {
            let count = count.clone();
            async move {
                count.fetch_add(1, Ordering::SeqCst);
                // The even ones never answer.
                if call.machine.is_multiple_of(2) { std::future::pending().await } else { Ok(()) }
            }
        });
        let caller = queue.clone();
        bare.db.write(move |tx| {
            for machine in 0..4 {
                for _ in 0..20 {
                    caller.enqueue(tx, &Call { machine }, &When::now(START, USEFUL).urgent())?;
                }
            }
            Ok(())
        }).await.unwrap();
        let worker = Worker::start(bare.db.clone(), queue.clone(), handlers);
        enqueue(&bare.db, &queue, 0..50, When::now(START, USEFUL)).await;
        none_wait(bare).await;
        until("the others are called", || async { called.load(Ordering::SeqCst) == 2 * 8 + 2 * 20 }).await;
        worker.stop().await;
    }
}
