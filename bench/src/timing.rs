//! does the time of a refused sign-in tell whether there is an account, and of what kind? Samples of all kinds
//! are taken in turn, in an order drawn anew for each turn, so that whatever the machine does meets all alike.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foundation::kernel::Clock;
use tokio::task::JoinHandle;

use crate::Measured;
use crate::client::{Answer, Client, load};
use crate::measures::{COST, temporary, whole};
use crate::program::{PASSWORD, Person, Program, binary, login, sign_in};
use crate::storm::Chance;
use crate::table::{Table, median};

/// Samples of each kind, unless the command line says otherwise.
pub(crate) const SAMPLES: usize = 2_000;
/// Accounts of each kind, in turn: a single one may sit in a lucky place.
const EACH: usize = 4;
const WARM_UP: usize = 5;
const WRONG: &str = "seven grey lanterns drift";
const LOAD: f64 = 0.8;
/// Seconds between two looks at how busy it is.
const LOOK: f64 = 2.0;
/// Share of the machine's sign-ins that are samples while there is load.
const SAMPLED: f64 = 0.2;
/// Where Welch's t begins to mean something (dudect).
const CLEAR: f64 = 4.5;
const GOAL: &str = "< 2 % or < 0.5 ms, t < 4.5";

const BCRYPT: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
/// What the server's memory for a hash was once, in KiB: such a hash takes less than half as long as today's.
const ONCE: u32 = 8_192;

/// A kind of account.
#[derive(Clone)]
struct Kind {
    name: &'static str,
    requests: Vec<Vec<u8>>,
}

impl Kind {
    fn new(name: &'static str, emails: impl Iterator<Item = String>) -> Self {
        Self { name, requests: emails.map(|email| login(&email, WRONG)).collect() }
    }
}

/// Everything, idle and under load: with hashes of today's cost alone, with some of our own of less cost, and with
/// somebody who was imported with another system's hash. The last two make the server hold refusals back.
pub(crate) async fn run(table: &mut Table, samples: usize) -> Measured<()> {
    let dir = temporary()?;
    let people = Program::start(dir.path())?.people(EACH + 32).await?;
    let (known, busy) = people.split_at(EACH);
    import(dir.path(), "blank", None)?;
    let mut kinds = vec![
        Kind::new("unknown address", addresses("nobody")),
        Kind::new("known account", known.iter().map(|person| person.email.clone())),
        Kind::new("account without a password", addresses("blank")),
    ];
    both(table, dir.path(), "hashes of today's parameters alone", &kinds, busy, samples).await?;
    Program::weaker(dir.path(), ONCE)?.named("older", EACH).await?;
    kinds.push(Kind::new("account of weaker parameters", addresses("older")));
    both(table, dir.path(), "also our own of 8 MiB", &kinds, busy, samples).await?;
    import(dir.path(), "moved", Some(BCRYPT))?;
    kinds.push(Kind::new("account with an imported bcrypt hash", addresses("moved")));
    both(table, dir.path(), "also an imported bcrypt of cost 10", &kinds, busy, samples).await
}

fn addresses(name: &'static str) -> impl Iterator<Item = String> {
    (0..EACH).map(move |n| format!("{name}{n}@example.com"))
}

/// Brings accounts of one kind in, as an operator would.
fn import(data: &Path, name: &'static str, hash: Option<&str>) -> Measured<()> {
    let mut text = String::new();
    for email in addresses(name) {
        let mut person = serde_json::json!({ "email": email, "email_verified": true });
        if let (Some(hash), Some(person)) = (hash, person.as_object_mut()) {
            person.insert("password_hash".into(), hash.into());
        }
        text.push_str(&format!("{person}\n"));
    }
    let file = data.join(format!("{name}.ndjson"));
    std::fs::write(&file, text).map_err(|e| e.to_string())?;
    let out = Command::new(binary()?)
        .args(["import", "users"])
        .arg(file)
        .arg("--data")
        .arg(data)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| e.to_string())?;
    let words = String::from_utf8_lossy(&out.stdout);
    let whole = words.contains(&format!("{EACH} imported")) && !words.contains("warning");
    if out.status.success() && whole { Ok(()) } else { Err(format!("the import of {name}: {words}")) }
}

async fn both(
    table: &mut Table,
    data: &Path,
    database: &str,
    kinds: &[Kind],
    busy: &[Person],
    samples: usize,
) -> Measured<()> {
    let program = Program::production(data)?;
    let mut client = Client::connect(program.port).await?;
    for _ in 0..WARM_UP {
        for request in kinds.iter().flat_map(|kind| &kind.requests) {
            client.send(request).await?;
        }
    }
    drop(client);

    println!("timing: {database}, idle, {samples} samples of each of {} kinds", kinds.len());
    let times = sample(&program, kinds, samples, None).await?;
    report(table, database, "idle", kinds, times, "one connection, one sample after the other");

    let logins: Arc<Vec<Vec<u8>>> = Arc::new(busy.iter().map(|person| sign_in(person, PASSWORD)).collect());
    let all = logins.clone();
    let next = move |n: usize, _: Option<&Answer>| all.get(n).cloned().unwrap_or_default();
    let capacity = whole(load(program.port, 32, Duration::from_secs(3), next).await?)?.per_second;
    let pace = capacity * SAMPLED;
    let program = Arc::new(program);
    let crowd = Crowd::start(&program, &logins, capacity * (LOAD - SAMPLED), capacity);
    // Until the load is what it should be.
    sample(&program, kinds, 60, Some(pace)).await?;
    println!("timing: {database}, under load, {samples} samples of each of {} kinds", kinds.len());
    let (times, measured) = busyness(&program, sample(&program, kinds, samples, Some(pace))).await?;
    let others = crowd.stop().await?;
    println!("timing: the hashing threads were busy {:.0} % of the time", measured * 100.0);
    let how = format!(
        "{pace:.0} samples a second among {others:.0} right passwords of other people; the hashing threads were busy {:.0} % of the time",
        measured * 100.0
    );
    report(table, database, "under load", kinds, times, &how);
    Ok(())
}

/// Does something, and says how busy the hashing threads were meanwhile, from 0 to 1.
async fn busyness<T>(program: &Program, work: impl Future<Output = Measured<T>>) -> Measured<(T, f64)> {
    let (before, started) = (program.hashes().await?.1, Clock::stopwatch());
    let done = work.await?;
    let seconds = program.hashes().await?.1 - before;
    Ok((done, seconds / started.elapsed().as_secs_f64() / threads()))
}

/// Milliseconds of each kind. Without a pace one after the other; with one, so many in a second, whether or not those
/// before are answered.
async fn sample(
    program: &Program,
    kinds: &[Kind],
    each: usize,
    pace: Option<f64>,
) -> Measured<Vec<Vec<f64>>> {
    let order = Arc::new(order(kinds.len(), each));
    let next = Arc::new(AtomicUsize::new(0));
    let kinds: Arc<[Kind]> = kinds.into();
    let started = Clock::stopwatch();
    let workers = if pace.is_some() { 32 } else { 1 };
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let (order, next, kinds, port) = (order.clone(), next.clone(), kinds.clone(), program.port);
            tokio::spawn(async move {
                let mut client = Client::connect(port).await?;
                let mut times = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&which) = order.get(number) else { return Ok::<_, String>(times) };
                    if let Some(pace) = pace {
                        until(started, number as f64 / pace).await;
                    }
                    let account = number / kinds.len() % EACH;
                    let request = kinds.get(which).and_then(|kind| kind.requests.get(account));
                    let request = request.ok_or("no such account")?;
                    let began = Clock::stopwatch();
                    let answer = client.send(request).await?;
                    let took = began.elapsed().as_secs_f64() * 1_000.0;
                    match answer.status {
                        401 => times.push((which, took)),
                        503 => {}
                        other => return Err(format!("a wrong password was answered with {other}")),
                    }
                }
            })
        })
        .collect();
    let mut times = vec![Vec::new(); kinds.len()];
    for task in tasks {
        for (which, took) in task.await.map_err(|e| e.to_string())?? {
            times.get_mut(which).ok_or("no such kind")?.push(took);
        }
    }
    if times.iter().any(|times| times.len() * 100 < each * 99) {
        return Err("more than one in a hundred samples was turned away: this is too much load".into());
    }
    Ok(times)
}

/// Every kind once in each turn, in an order of the turn's own.
fn order(kinds: usize, turns: usize) -> Vec<usize> {
    let mut chance = Chance(7);
    let mut order = Vec::with_capacity(kinds * turns);
    for _ in 0..turns {
        let mut turn: Vec<(u64, usize)> = (0..kinds).map(|kind| (chance.next(), kind)).collect();
        turn.sort_unstable();
        order.extend(turn.into_iter().map(|(_, kind)| kind));
    }
    order
}

async fn until(started: Instant, seconds: f64) {
    let wait = Duration::from_secs_f64(seconds).saturating_sub(started.elapsed());
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
}

/// Other people who sign in meanwhile, as many as keep the hashing threads as busy as they should be: what the machine
/// has left for us changes from second to second.
struct Crowd {
    over: Arc<AtomicBool>,
    running: JoinHandle<Measured<f64>>,
}

impl Crowd {
    fn start(program: &Arc<Program>, logins: &Arc<Vec<Vec<u8>>>, pace: f64, most: f64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (program, logins, ended) = (program.clone(), logins.clone(), over.clone());
        let running = tokio::spawn(async move {
            let free: Arc<Mutex<Vec<Client>>> = Arc::default();
            let (mut pace, mut chance, mut sent) = (pace, Chance(11), 0usize);
            let (mut due, mut looked) = (0.0, 0.0);
            let (mut before, started) = (program.hashes().await?.1, Clock::stopwatch());
            while !ended.load(Ordering::Relaxed) {
                due += 2.0 * chance.share() / pace;
                until(started, due).await;
                let login = logins.get(sent % logins.len().max(1)).cloned().unwrap_or_default();
                tokio::spawn(one(program.port, login, free.clone()));
                sent += 1;
                let now = started.elapsed().as_secs_f64();
                if now - looked > LOOK {
                    let seconds = program.hashes().await?.1;
                    let busy = (seconds - before) / (now - looked) / threads();
                    pace = (pace * (1.0 + 0.5 * (LOAD - busy) / LOAD)).clamp(most * 0.02, most);
                    (before, looked, due) = (seconds, now, now);
                }
            }
            Ok(sent as f64 / started.elapsed().as_secs_f64())
        });
        Self { over, running }
    }

    /// Ends it; how many came in a second.
    async fn stop(self) -> Measured<f64> {
        self.over.store(true, Ordering::Relaxed);
        self.running.await.map_err(|e| e.to_string())?
    }
}

/// One of them, on whichever connection is free. What they are answered does not matter.
async fn one(port: u16, login: Vec<u8>, free: Arc<Mutex<Vec<Client>>>) -> Measured<()> {
    let kept = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut client = match kept {
        Some(client) => client,
        None => Client::connect(port).await?,
    };
    client.send(&login).await?;
    free.lock().unwrap_or_else(PoisonError::into_inner).push(client);
    Ok(())
}

fn threads() -> f64 {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get) as f64
}

/// One row for each kind against the first, and one for the two kinds that are furthest apart.
fn report(table: &mut Table, database: &str, when: &str, kinds: &[Kind], times: Vec<Vec<f64>>, how: &str) {
    let named: Vec<(&str, Vec<f64>)> = kinds.iter().map(|kind| kind.name).zip(times).collect();
    let Some((nobody, others)) = named.split_first() else { return };
    let samples = nobody.1.len();
    let how = format!("{samples} samples of each kind in turn; {how}; {COST}, production mode, SQLite FULL");
    for other in others {
        let what = format!("refusal, {} against {}: {database}, {when}", other.0, nobody.0);
        apart(table, &what, &other.1, &nobody.1, &how);
    }
    let pairs =
        named.iter().enumerate().flat_map(|(n, one)| named.iter().skip(n + 1).map(move |two| (one, two)));
    let gap = |one: &[f64], two: &[f64]| (median(one.to_vec()) - median(two.to_vec())).abs();
    if let Some((one, two)) = pairs.max_by(|a, b| gap(&a.0.1, &a.1.1).total_cmp(&gap(&b.0.1, &b.1.1))) {
        let what = format!("refusal, the two furthest apart ({}, {}): {database}, {when}", two.0, one.0);
        apart(table, &what, &two.1, &one.1, &how);
    }
}

fn apart(table: &mut Table, what: &str, one: &[f64], two: &[f64], how: &str) {
    let (a, b) = (median(one.to_vec()), median(two.to_vec()));
    let (gap, sure) = (a - b, doubt(one).hypot(doubt(two)));
    let percent = gap / b * 100.0;
    let t = welch_cropped(one, two);
    let met = (percent.abs() < 2.0 || gap.abs() < 0.5) && t.abs() < CLEAR;
    table.judged(
        what,
        format!("{a:.2} ms against {b:.2} ms: {gap:+.3} ms ± {sure:.3} ({percent:+.2} %), t = {t:+.1}"),
        GOAL,
        met,
        how,
    );
}

/// The standard error of a median, from the order of the samples.
fn doubt(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (middle, root) = (sorted.len() as f64 / 2.0, (sorted.len() as f64).sqrt() / 2.0);
    let at = |place: f64| {
        let place = (place.max(0.0) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(place).copied().unwrap_or(f64::NAN)
    };
    (at(middle + root) - at(middle - root)) / 2.0
}

/// Welch's t of all samples, or of those below nine tenths of both together when that is larger: a few late ones must
/// not hide a difference (dudect).
fn welch_cropped(one: &[f64], two: &[f64]) -> f64 {
    let mut all: Vec<f64> = one.iter().chain(two).copied().collect();
    let most = crate::table::quantile(&mut all, 0.9);
    let crop = |samples: &[f64]| samples.iter().copied().filter(|time| *time < most).collect::<Vec<_>>();
    let (raw, cropped) = (welch(one, two), welch(&crop(one), &crop(two)));
    if cropped.abs() > raw.abs() { cropped } else { raw }
}

fn welch(one: &[f64], two: &[f64]) -> f64 {
    let moments = |samples: &[f64]| {
        let count = samples.len() as f64;
        let mean = samples.iter().sum::<f64>() / count;
        let variance = samples.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((a, va), (b, vb)) = (moments(one), moments(two));
    (a - b) / (va + vb).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_is_what_another_program_finds() {
        // Python's `statistics` gives -2.8353.
        let one = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4];
        let two = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.0, 23.9];
        assert!((welch(&one, &two) + 2.8353).abs() < 0.001, "{}", welch(&one, &two));
    }

    #[test]
    fn every_kind_comes_once_in_each_turn() {
        for turn in order(5, 100).chunks(5) {
            let mut turn = turn.to_vec();
            turn.sort_unstable();
            assert_eq!(turn, [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_late_tail_does_not_hide_a_difference() {
        let mut one: Vec<f64> = (0..900).map(|n| 10.0 + f64::from(n % 10) / 100.0).collect();
        let mut two: Vec<f64> = one.iter().map(|time| time + 0.05).collect();
        one.extend((0..100).map(|n| 1_000.0 + f64::from(n) * 50.0));
        two.extend((0..100).map(|n| 1_000.0 + f64::from(n) * 50.0));
        assert!(welch(&one, &two).abs() < CLEAR && welch_cropped(&one, &two).abs() > CLEAR);
    }
}
