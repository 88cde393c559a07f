//! A-07, A-08: does the time of an answer tell whether there is an account, and of what kind? Samples of all kinds are
//! taken in turn, in an order drawn anew for each turn, so that whatever the machine does meets all alike.
//!
//! Limits, lockout and alarms count as they always do and are so wide that none is ever reached: the same statements
//! run for the first sample and for the last. Two cannot be that wide. Lockout only reports, but for the pair that is
//! locked. Mails are not capped: what a cap counts for an address that was asked about ten thousand times is not what
//! it counts for anybody else.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foundation::db::Db;
use foundation::kernel::Clock;
use pearlgate::app::MIGRATIONS;
use tokio::task::JoinHandle;

use crate::Measured;
use crate::client::{Answer, Client, load, request};
use crate::measures::{COST, temporary, whole};
use crate::program::{PASSWORD, Person, Program, Setting, binary, login, sign_in};
use crate::storm::Chance;
use crate::table::{Table, median, quantile};

/// Samples of each kind, unless the command line says otherwise.
pub(crate) const SAMPLES: usize = 10_000;
/// Accounts of each kind, in turn: a single one may sit in a lucky place.
const EACH: usize = 4;
/// Samples of each kind that are taken first and thrown away.
const WARM_UP: usize = 20;
const WRONG: &str = "seven grey lanterns drift";
const LOAD: f64 = 0.8;
/// Seconds between two looks at how busy it is.
const LOOK: f64 = 2.0;
/// Share of the machine's sign-ins that are samples while there is load.
const SAMPLED: f64 = 0.2;
/// Where Welch's t begins to mean something (dudect).
const CLEAR: f64 = 4.5;
/// Below which shares of all samples t is taken once more: late ones must not hide a difference (dudect).
const CROPS: [f64; 5] = [0.5, 0.75, 0.9, 0.95, 0.99];
const GOAL: &str = "< 2 % or < 0.5 ms, t < 4.5";
/// As long as the jobs that a request left behind take at the very most: the next sample finds the server idle, whatever
/// kind the one before it was.
const REST: Duration = Duration::from_millis(5);

/// Whoever is locked stays locked.
const LOCKED: [Setting; 3] = [("lockout.mode", "on"), ("lockout.first", "24h"), ("lockout.longest", "24h")];
/// The first that lets nobody try any more (`lockout.after`).
const TRIES: usize = 5;

/// A hash that takes so little time that ten thousand of everything fit into an hour, and that hides less.
const LIGHT: [Setting; 2] = [("hashing.memory_kib", "1024"), ("hashing.iterations", "1")];
const LIGHT_COST: &str = "Argon2id m=1024,t=1,p=1";
/// What the server's memory for a hash was once.
const ONCE: [Setting; 2] = [("hashing.memory_kib", "512"), ("hashing.iterations", "1")];
const BCRYPT: &str = "$2b$05$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";

/// What no request makes of an account yet, or only an operator.
const STATES: &str = "
    INSERT INTO suspensions (user_id, reason, suspended_at)
        SELECT user_id, 'bench', 1 FROM user_emails WHERE address_key LIKE 'suspended%';
    INSERT INTO password_change_demands (user_id, reason, demanded_at)
        SELECT user_id, 'bench', 1 FROM user_emails WHERE address_key LIKE 'demanded%';
    INSERT INTO totp_factors (user_id, sealed, last_step, confirmed_at)
        SELECT user_id, x'07', 0, 0 FROM user_emails WHERE address_key LIKE 'factor%';
    INSERT INTO federated_identities (provider, subject, user_id, linked_at)
        SELECT 'google', address_key, user_id, 1 FROM user_emails WHERE address_key LIKE 'social%'";

/// A kind of account.
#[derive(Clone)]
struct Kind {
    name: &'static str,
    /// In turn.
    requests: Vec<Vec<u8>>,
}

impl Kind {
    /// Refused sign-ins at the addresses of one name.
    fn login(name: &'static str, whose: &'static str) -> Self {
        Self { name, requests: addresses(whose).map(|email| login(&email, WRONG)).collect() }
    }

    /// Requests that have nothing in them but the addresses of one name.
    fn asking(name: &'static str, whose: &'static str, path: &str) -> Self {
        let ask = |email: String| request("POST", path, "", &format!(r#"{{"email":"{email}"}}"#));
        Self { name, requests: addresses(whose).map(ask).collect() }
    }

    /// Registrations.
    fn registering(name: &'static str, emails: impl Iterator<Item = String>) -> Self {
        Self { name, requests: emails.map(|email| registration(&email)).collect() }
    }
}

fn addresses(name: &'static str) -> impl Iterator<Item = String> {
    (0..EACH).map(move |n| format!("{name}{n}@example.com"))
}

fn registration(email: &str) -> Vec<u8> {
    let body = format!(r#"{{"email":"{email}","password":"{PASSWORD}"}}"#);
    request("POST", "/v1/auth/register", "", &body)
}

/// A server, and how samples are taken of it.
struct Stage {
    program: Arc<Program>,
    /// The first words of its rows.
    what: String,
    /// How the samples are answered.
    status: u16,
    /// How long the server is left alone after each, when there is no load.
    rest: Duration,
    /// Under which conditions.
    how: String,
}

impl Stage {
    /// Wrong passwords in production mode.
    fn refusals(data: &Path, settings: &[Setting], database: &str, cost: &str) -> Measured<Self> {
        Ok(Self {
            program: Arc::new(Program::production_with(data, settings)?),
            what: format!("refusal, {database}"),
            status: 401,
            rest: Duration::ZERO,
            how: format!(
                "{cost}, production mode, SQLite FULL, limits on and never reached, lockout reports"
            ),
        })
    }
}

/// Everything: refusals with hashes of the usual cost, idle and under load; and with a light one, idle, those of every
/// kind of account, those of who is locked, and what is answered with a mail.
pub(crate) async fn run(table: &mut Table, samples: usize, stages: &[&str]) -> Measured<()> {
    if let Some(other) = stages.iter().find(|stage| !STAGES.contains(stage)) {
        return Err(format!("{other:?} is no stage; they are {}", STAGES.join(", ")));
    }
    let wanted = |stage: &str| stages.is_empty() || stages.contains(&stage);
    if wanted("usual") || wanted("load") {
        usual(table, samples, (wanted("usual"), wanted("load"))).await?;
    }
    if wanted("kinds") {
        kinds(table, samples).await?;
    }
    if wanted("locked") {
        locked(table, samples).await?;
    }
    if wanted("mails") {
        mails(table, samples).await?;
    }
    Ok(())
}

const STAGES: [&str; 5] = ["usual", "load", "kinds", "locked", "mails"];

async fn usual(table: &mut Table, samples: usize, (calm, load): (bool, bool)) -> Measured<()> {
    let dir = temporary()?;
    let program = Program::start(dir.path())?;
    program.named("known", EACH).await?;
    let busy = program.people(32).await?;
    drop(program);
    let kinds = [Kind::login("unknown address", "nobody"), Kind::login("known account", "known")];
    let stage = Stage::refusals(dir.path(), &[], "hashes of today's parameters alone", COST)?;
    if calm {
        idle(table, &stage, &kinds, samples).await?;
    }
    if load {
        under_load(table, &stage, &kinds, &busy, samples).await?;
    }
    Ok(())
}

/// With hashes of one cost alone, with some of our own of less cost, and with somebody who was imported with another
/// system's hash. The last two make the server hold refusals back.
async fn kinds(table: &mut Table, samples: usize) -> Measured<()> {
    let dir = temporary()?;
    let data = dir.path();
    let program = Program::dev_with(data, &LIGHT)?;
    for name in ["known", "suspended", "demanded", "factor"] {
        program.named(name, EACH).await?;
    }
    register(&program, "waiting").await?;
    drop(program);
    import(data, "blank", None)?;
    import(data, "social", None)?;
    stored(data, STATES).await?;
    let of = Kind::login;
    let mut kinds = vec![
        of("unknown address", "nobody"),
        of("known account", "known"),
        of("account without a password", "blank"),
        of("account with a social identity alone", "social"),
        of("unproven registration", "waiting"),
        of("suspended account", "suspended"),
        of("account that must change its password", "demanded"),
        of("account with a second factor", "factor"),
    ];
    let stage = Stage::refusals(data, &LIGHT, "light hashes alone", LIGHT_COST)?;
    idle(table, &stage, &kinds, samples).await?;
    drop(stage);
    kinds.truncate(3);
    Program::dev_with(data, &ONCE)?.named("older", EACH).await?;
    kinds.push(of("account of weaker parameters", "older"));
    let stage = Stage::refusals(data, &LIGHT, "also our own of half the memory", LIGHT_COST)?;
    idle(table, &stage, &kinds, samples).await?;
    drop(stage);
    import(data, "moved", Some(BCRYPT))?;
    kinds.push(of("account with an imported bcrypt hash", "moved"));
    let stage = Stage::refusals(data, &LIGHT, "also an imported bcrypt of cost 5", LIGHT_COST)?;
    idle(table, &stage, &kinds, samples).await
}

/// Whoever is locked, and an address that nobody has after as many tries.
async fn locked(table: &mut Table, samples: usize) -> Measured<()> {
    let dir = temporary()?;
    let settings = [&LIGHT[..], &LOCKED].concat();
    let program = Program::dev_with(dir.path(), &settings)?;
    program.named("known", EACH).await?;
    let kinds =
        [Kind::login("locked address that nobody has", "nobody"), Kind::login("locked account", "known")];
    let mut client = Client::connect(program.port).await?;
    for request in kinds.iter().flat_map(|kind| &kind.requests) {
        for _ in 0..TRIES {
            expected(&client.send(request).await?, 401)?;
        }
    }
    let stage = Stage {
        program: Arc::new(program),
        what: "sign-in to what is locked".into(),
        status: 423,
        rest: Duration::ZERO,
        how: "no hash is computed; dev mode, SQLite FULL, limits on and never reached, lockout on".into(),
    };
    idle(table, &stage, &kinds, samples).await
}

/// What is answered with a mail, or with nothing. Jobs send it: the samples wait until those of the one before are done.
async fn mails(table: &mut Table, samples: usize) -> Measured<()> {
    let dir = temporary()?;
    let program = Program::dev_with(dir.path(), &LIGHT)?;
    program.named("known", EACH).await?;
    register(&program, "waiting").await?;
    let how = "dev mode, SQLite FULL, limits on and never reached, but no cap on mails";
    let mut stage = Stage {
        program: Arc::new(program),
        what: String::new(),
        status: 202,
        rest: REST,
        how: format!("{} ms after the one before; {how}", REST.as_millis()),
    };
    for (what, path) in [
        ("verification mail again", "/v1/auth/resend-verification"),
        ("forgot password", "/v1/auth/forgot-password"),
        ("magic link", "/v1/auth/magic-link"),
    ] {
        let kinds = [
            Kind::asking("unknown address", "nobody", path),
            Kind::asking("known account", "known", path),
            Kind::asking("unproven registration", "waiting", path),
        ];
        stage.what = what.into();
        idle(table, &stage, &kinds, samples).await?;
    }
    // Whoever registers has the address from then on: it takes a new one each time.
    let new = (0..samples + WARM_UP).map(|n| format!("new{n}@example.com"));
    let kinds = [
        Kind::registering("unknown address", new),
        Kind::registering("known account", addresses("known")),
        Kind::registering("unproven registration", addresses("waiting")),
    ];
    stage.what = "registration".into();
    stage.how = format!("{LIGHT_COST}; {}", stage.how);
    idle(table, &stage, &kinds, samples).await
}

fn expected(answer: &Answer, status: u16) -> Measured<()> {
    if answer.status == status {
        Ok(())
    } else {
        Err(format!("{} instead of {status}: {}", answer.status, String::from_utf8_lossy(&answer.body)))
    }
}

/// Registers people who do not open their mail.
async fn register(program: &Program, name: &'static str) -> Measured<()> {
    let mut client = Client::connect(program.port).await?;
    for email in addresses(name) {
        expected(&client.send(&registration(&email)).await?, 202)?;
    }
    Ok(())
}

/// Changes a database whose server is stopped.
async fn stored(data: &Path, sql: &str) -> Measured<()> {
    let db = Db::sqlite(&data.join("pearlgate.db"), true).map_err(|e| e.to_string())?;
    db.migrate(MIGRATIONS, Clock::System.now()).await.map_err(|e| e.to_string())?;
    db.batch(sql.to_owned()).await.map_err(|e| e.to_string())
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

/// One connection, one sample after the other.
async fn idle(table: &mut Table, stage: &Stage, kinds: &[Kind], samples: usize) -> Measured<()> {
    println!("timing: {}, idle, {samples} samples of each of {} kinds", stage.what, kinds.len());
    let mut times = sample(stage, kinds, samples + WARM_UP, None).await?;
    for times in &mut times {
        times.drain(..WARM_UP.min(times.len()));
    }
    report(table, stage, "idle", kinds, times, "one connection, one sample after the other");
    Ok(())
}

async fn under_load(
    table: &mut Table,
    stage: &Stage,
    kinds: &[Kind],
    busy: &[Person],
    samples: usize,
) -> Measured<()> {
    let program = &stage.program;
    let logins: Arc<Vec<Vec<u8>>> = Arc::new(busy.iter().map(|person| sign_in(person, PASSWORD)).collect());
    let all = logins.clone();
    let next = move |n: usize, _: Option<&Answer>| all.get(n).cloned().unwrap_or_default();
    let capacity = whole(load(program.port, 32, Duration::from_secs(3), next).await?)?.per_second;
    let pace = capacity * SAMPLED;
    let crowd = Crowd::start(program, &logins, capacity * (LOAD - SAMPLED), capacity);
    // Until the load is what it should be.
    sample(stage, kinds, 60, Some(pace)).await?;
    println!("timing: {}, under load, {samples} samples of each of {} kinds", stage.what, kinds.len());
    let (times, measured) = busyness(program, sample(stage, kinds, samples, Some(pace))).await?;
    let others = crowd.stop().await?;
    println!("timing: the hashing threads were busy {:.0} % of the time", measured * 100.0);
    let how = format!(
        "{pace:.0} samples a second among {others:.0} right passwords of other people; the hashing threads were busy {:.0} % of the time",
        measured * 100.0
    );
    report(table, stage, "under load", kinds, times, &how);
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
async fn sample(stage: &Stage, kinds: &[Kind], each: usize, pace: Option<f64>) -> Measured<Vec<Vec<f64>>> {
    let order = Arc::new(order(kinds.len(), each));
    let next = Arc::new(AtomicUsize::new(0));
    let kinds: Arc<[Kind]> = kinds.into();
    let (port, status, rest) = (stage.program.port, stage.status, stage.rest);
    let started = Clock::stopwatch();
    let workers = if pace.is_some() { 32 } else { 1 };
    let tasks: Vec<_> = (0..workers)
        .map(|_| {
            let (order, next, kinds) = (order.clone(), next.clone(), kinds.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(port).await?;
                let mut times = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(&which) = order.get(number) else { return Ok::<_, String>(times) };
                    match pace {
                        Some(pace) => until(started, number as f64 / pace).await,
                        None if !rest.is_zero() => tokio::time::sleep(rest).await,
                        None => {}
                    }
                    let requests = kinds.get(which).map(|kind| &kind.requests).ok_or("no such kind")?;
                    let request = requests.get(number / kinds.len() % requests.len().max(1));
                    let request = request.ok_or("no such account")?;
                    let began = Clock::stopwatch();
                    let answer = client.send(request).await?;
                    let took = began.elapsed().as_secs_f64() * 1_000.0;
                    // Turned away before anything was looked at: no sample.
                    if answer.status != 503 {
                        expected(&answer, status)?;
                        times.push((which, took));
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
fn report(table: &mut Table, stage: &Stage, when: &str, kinds: &[Kind], times: Vec<Vec<f64>>, how: &str) {
    let named: Vec<(&str, Vec<f64>)> = kinds.iter().map(|kind| kind.name).zip(times).collect();
    let Some((nobody, others)) = named.split_first() else { return };
    let samples = nobody.1.len();
    let how = format!("{samples} samples of each kind in turn; {how}; {}", stage.how);
    for other in others {
        let what = format!("{}, {when}: {} against {}", stage.what, other.0, nobody.0);
        apart(table, &what, &other.1, &nobody.1, &how);
    }
    if others.len() < 2 {
        return;
    }
    let pairs =
        named.iter().enumerate().flat_map(|(n, one)| named.iter().skip(n + 1).map(move |two| (one, two)));
    let gap = |one: &[f64], two: &[f64]| (median(one.to_vec()) - median(two.to_vec())).abs();
    if let Some((one, two)) = pairs.max_by(|a, b| gap(&a.0.1, &a.1.1).total_cmp(&gap(&b.0.1, &b.1.1))) {
        let what = format!("{}, {when}: the two furthest apart, {} against {}", stage.what, two.0, one.0);
        apart(table, &what, &two.1, &one.1, &how);
    }
}

fn apart(table: &mut Table, what: &str, one: &[f64], two: &[f64], how: &str) {
    let (a, b) = (median(one.to_vec()), median(two.to_vec()));
    let (gap, sure) = (a - b, doubt(one).hypot(doubt(two)));
    let percent = gap / b * 100.0;
    let t = welch_cropped(one, two);
    let met = (percent.abs() < 2.0 || gap.abs() < 0.5) && t.abs() < CLEAR;
    let [gap, sure] = [gap, sure].map(|milliseconds| milliseconds * 1_000.0);
    table.judged(
        what,
        format!("{a:.3} ms against {b:.3} ms: {gap:+.1} µs ± {sure:.1} ({percent:+.2} %), t = {t:+.1}"),
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

/// Welch's t of all samples, or of those below a share of both together, whichever is largest (dudect).
fn welch_cropped(one: &[f64], two: &[f64]) -> f64 {
    let mut all: Vec<f64> = one.iter().chain(two).copied().collect();
    CROPS.iter().fold(welch(one, two), |largest, share| {
        let most = quantile(&mut all, *share);
        let crop = |samples: &[f64]| samples.iter().copied().filter(|time| *time < most).collect::<Vec<_>>();
        let cropped = welch(&crop(one), &crop(two));
        if cropped.abs() > largest.abs() { cropped } else { largest }
    })
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
