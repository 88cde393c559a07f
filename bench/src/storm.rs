//! Many sign-ins at once, half of whose clients go away before they are answered: what it costs in memory, whether
//! everybody is answered, and what is left for those who only show their session.

use std::sync::Arc;
use std::time::Duration;

use foundation::kernel::Clock;
use pearlgate::passwords::bare_rate;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinHandle;

use crate::client::{Answer, Client, load, request};
use crate::measures::{COST, DEFAULT, temporary, whole};
use crate::program::{PASSWORD, Person, Program, sign_in};
use crate::table::{Table, median, quantile};
use crate::{Measured, ROUNDS};

const HALF_LEAVES: &str = "half of the clients go away before they are answered, after a random part of the wait; every fourth password is wrong";
/// What can be waited for: two threads and the queue that is as long as two seconds.
const MOST_WAITING: usize = 2 + 256;
/// Whoever is not answered by then counts as forgotten.
const LATEST: Duration = Duration::from_secs(30);
/// Session checks a second that a storm should not be felt by.
const PACE: f64 = 1_000.0;

/// How the clients of a storm take a 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// They wait as long as `Retry-After` says.
    Waits,
    /// They ask again at once.
    Hammers,
}

/// What the clients of a storm were answered.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    let_in: usize,
    refused: usize,
    shed: usize,
    /// Any other answer, and 503 without `Retry-After`.
    strange: usize,
    /// Went away before an answer came.
    left: usize,
    /// Waited in vain, or the connection broke.
    forgotten: usize,
}

impl Tally {
    fn count(&mut self, answer: &Answer) {
        match (answer.status, answer.retry_after) {
            (200, _) => self.let_in += 1,
            (401, _) => self.refused += 1,
            (503, Some(_)) => self.shed += 1,
            _ => self.strange += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.let_in += other.let_in;
        self.refused += other.refused;
        self.shed += other.shed;
        self.strange += other.strange;
        self.left += other.left;
        self.forgotten += other.forgotten;
    }

    fn answered(&self) -> usize {
        self.let_in + self.refused
    }

    fn words(&self) -> String {
        let Self { let_in, refused, shed, strange, left, forgotten } = self;
        format!(
            "200: {let_in}, 401: {refused}, 503 with Retry-After: {shed}, other: {strange}, no answer: {forgotten}; {left} went away"
        )
    }

    fn nobody_forgotten(&self) -> bool {
        self.strange == 0 && self.forgotten == 0
    }
}

/// A storm that goes on until it is stopped.
struct Storm {
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Storm {
    /// Connects everybody, then lets all begin at the same time. `rate` is what the server hashes a second.
    async fn start(port: u16, people: &[Person], clients: usize, manners: Manners, rate: f64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let barrier = Arc::new(Barrier::new(clients + 1));
        let patience = clients.min(MOST_WAITING) as f64 / rate;
        let clients = (0..clients)
            .map(|n| {
                let person = people.get(n % people.len().max(1));
                let request = |password| person.map(|person| sign_in(person, password)).unwrap_or_default();
                let client = Guest {
                    port,
                    right: request(PASSWORD),
                    wrong: request("seven grey lanterns drift"),
                    manners,
                    stopped: stopped.clone(),
                    patience: (n % 2 == 1).then_some(patience),
                    chance: Chance(n as u64 + 1),
                };
                tokio::spawn(client.stay(barrier.clone()))
            })
            .collect();
        barrier.wait().await;
        Self { stop, clients }
    }

    /// Ends it, when everybody who waits for an answer has got one.
    async fn stop(self) -> Measured<Tally> {
        let _ = self.stop.send(true);
        let mut tally = Tally::default();
        for client in self.clients {
            tally.add(client.await.map_err(|e| e.to_string())?);
        }
        Ok(tally)
    }
}

struct Guest {
    port: u16,
    right: Vec<u8>,
    wrong: Vec<u8>,
    manners: Manners,
    stopped: watch::Receiver<bool>,
    /// Seconds that an answer may take at most before this one leaves; none for who stays.
    patience: Option<f64>,
    chance: Chance,
}

impl Guest {
    async fn stay(mut self, begin: Arc<Barrier>) -> Tally {
        let mut tally = Tally::default();
        let mut client = Client::connect(self.port).await.ok();
        begin.wait().await;
        let mut attempts = 0usize;
        while !*self.stopped.borrow() {
            attempts += 1;
            let connected = match client.take() {
                Some(connected) => Ok(connected),
                None => Client::connect(self.port).await,
            };
            let Ok(mut connected) = connected else {
                tally.forgotten += 1;
                continue;
            };
            let request = if attempts.is_multiple_of(4) { &self.wrong } else { &self.right };
            let leaves = self.patience.map(|most| Duration::from_secs_f64(self.chance.share() * most));
            match tokio::time::timeout(leaves.unwrap_or(LATEST), connected.send(request)).await {
                Ok(Ok(answer)) => {
                    tally.count(&answer);
                    client = Some(connected);
                    if self.manners == Manners::Waits
                        && let Some(seconds) = answer.retry_after
                    {
                        tokio::select! {
                            () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
                            _ = self.stopped.changed() => {}
                        }
                    }
                }
                Err(_) if leaves.is_some() => tally.left += 1,
                _ => tally.forgotten += 1,
            }
        }
        tally
    }
}

/// Numbers that look random and are the same in every run.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Memory and answers at 1,000 concurrent sign-ins.
pub(crate) async fn memory(table: &mut Table) -> Measured<()> {
    let dir = temporary()?;
    let people = Program::start(dir.path())?.people(64).await?;
    let rate = bare_rate(DEFAULT, cores(), Duration::from_secs(2));
    for (manners, words) in
        [(Manners::Waits, "who wait as Retry-After says"), (Manners::Hammers, "who ask again at once")]
    {
        let (mut peaks, mut idle, mut afterwards, mut tally) = (vec![], vec![], vec![], Tally::default());
        for _ in 0..ROUNDS {
            let program = Program::production(dir.path())?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            idle.push(program.resident()? as f64 / 1_024.0);
            let storm = Storm::start(program.port, &people, 1_000, manners, rate).await;
            tokio::time::sleep(Duration::from_secs(4)).await;
            tally.add(storm.stop().await?);
            peaks.push(program.peak()? as f64 / 1_024.0);
            tokio::time::sleep(Duration::from_millis(500)).await;
            afterwards.push(program.resident()? as f64 / 1_024.0);
        }
        let most = peaks.iter().copied().fold(0.0, f64::max);
        table.judged(
            &format!("memory at 1,000 concurrent logins {words}"),
            format!(
                "{:.1} MiB (at most {most:.1}; {:.1} before, {:.1} after)",
                median(peaks),
                median(idle),
                median(afterwards)
            ),
            "≤ 80 MiB",
            most <= 80.0,
            &format!("VmHWM of the server, {ROUNDS} fresh starts, 4 s each, production mode; {HALF_LEAVES}; {COST}, SQLite FULL; nobody asked about breaches"),
        );
        table.judged(
            &format!("answers to 1,000 concurrent logins {words}"),
            tally.words(),
            "all 200, 401 or 503 with Retry-After",
            tally.nobody_forgotten(),
            "the same storms, all together; clients that stay wait up to 30 s",
        );
    }
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

/// What was measured while one kind of storm went on, a figure for each round.
#[derive(Default)]
struct Weather {
    kept: Vec<f64>,
    rate: Vec<f64>,
    tail: Vec<f64>,
    paced_tail: Vec<f64>,
    hashes: Vec<f64>,
    paced_hashes: Vec<f64>,
    answered: Vec<f64>,
}

/// Session checks during storms.
pub(crate) async fn storms(table: &mut Table) -> Measured<()> {
    let levels = [
        (4, Manners::Waits),
        (16, Manners::Waits),
        (64, Manners::Waits),
        (1_000, Manners::Waits),
        (1_000, Manners::Hammers),
    ];
    let dir = temporary()?;
    let people = Program::start(dir.path())?.people(64).await?;
    let program = Program::production(dir.path())?;
    let tokens = program.sign_in(people.get(..32).unwrap_or_default()).await?;
    let checks: Arc<Vec<Vec<u8>>> =
        Arc::new(tokens.iter().map(|token| request("GET", "/v1/me", token, "")).collect());
    let (mut idle, mut idle_tail, mut calm_tail, mut bare) = (vec![], vec![], vec![], vec![]);
    let mut weathers: [Weather; 5] = Default::default();
    for _ in 0..ROUNDS {
        let raw = bare_rate(DEFAULT, cores(), Duration::from_secs(2));
        let mut calm = whole(full(program.port, &checks).await?)?;
        idle.push(calm.per_second);
        idle_tail.push(quantile(&mut calm.times, 0.99) * 1_000.0);
        calm_tail.push(paced(program.port, &checks).await?);
        bare.push(raw);
        for ((clients, manners), weather) in levels.into_iter().zip(&mut weathers) {
            let storm = Storm::start(program.port, &people, clients, manners, raw).await;
            let began = Clock::stopwatch();
            tokio::time::sleep(Duration::from_millis(500)).await;
            let (before, start) = (program.hashes().await?.0, Clock::stopwatch());
            let mut during = whole(full(program.port, &checks).await?)?;
            weather.hashes.push((program.hashes().await?.0 - before) / start.elapsed().as_secs_f64() / raw);
            weather.kept.push(during.per_second / calm.per_second);
            weather.rate.push(during.per_second);
            weather.tail.push(quantile(&mut during.times, 0.99) * 1_000.0);
            let (before, start) = (program.hashes().await?.0, Clock::stopwatch());
            weather.paced_tail.push(paced(program.port, &checks).await?);
            let done = program.hashes().await?.0 - before;
            weather.paced_hashes.push(done / start.elapsed().as_secs_f64() / raw);
            let time = began.elapsed().as_secs_f64();
            let tally = storm.stop().await?;
            weather.answered.push(tally.answered() as f64 / time);
            if !tally.nobody_forgotten() {
                return Err(format!("in a storm of {clients}: {}", tally.words()));
            }
        }
    }
    let (idle, idle_tail, calm_tail, bare) =
        (median(idle), median(idle_tail), median(calm_tail), median(bare));
    let mut flat = Vec::new();
    for ((clients, manners), weather) in levels.into_iter().zip(weathers) {
        let who = if manners == Manners::Hammers { " who ask again at once" } else { "" };
        let (kept, tail, paced) = (median(weather.kept), median(weather.tail), median(weather.paced_tail));
        let (ratio, beside) = (median(weather.paced_hashes), median(weather.hashes));
        let (checks, logins) = (
            format!("session checks during {clients} concurrent logins{who}"),
            format!("hashes of {clients} concurrent logins{who} ÷ bare hashes"),
        );
        let checked = format!(
            "kept {kept:.2} ({:.0}/s), p99 {tail:.2} ms; p99 {paced:.2} ms at {PACE:.0}/s",
            median(weather.rate)
        );
        let hashed = format!(
            "{ratio:.2}; {beside:.2} beside session checks as fast as they can; {:.0} answered a second on average",
            median(weather.answered)
        );
        if manners == Manners::Hammers {
            let how = "as above; a flood from one address, with limits so wide that none stops it, takes the processor from everybody in proportion to its connections, and this client's own processor too";
            table.row(&checks, checked, "–", how);
            table.row(&logins, hashed, "–", how);
            continue;
        }
        flat.push(kept);
        table.judged(
            &checks,
            checked,
            "≥ 0.75, p99 ≤ 5 ms",
            kept >= 0.75 && tail <= 5.0 && paced <= 5.0,
            &format!("of {idle:.0}/s, p99 {idle_tail:.2} ms without a storm ({calm_tail:.2} ms at {PACE:.0}/s); 32 connections as fast as they can, then 16 paced; production mode, SQLite FULL; {HALF_LEAVES}, and who is answered 503 waits as Retry-After says; client on the same 2 cores"),
        );
        table.judged(
            &logins,
            hashed,
            "≥ 0.9",
            ratio >= 0.9,
            &format!("{COST}, beside {PACE:.0} session checks a second; ÷ {bare:.1}/s; hashes by the server's own count, with those whose client went away in the middle of them"),
        );
    }
    let (low, high) =
        flat.iter().fold((f64::MAX, 0.0f64), |(low, high), kept| (low.min(*kept), high.max(*kept)));
    table.row(
        "session checks kept, from the worst to the best storm",
        format!("{low:.2} to {high:.2}"),
        "flat",
        "of the rows above",
    );
    Ok(())
}

/// Session checks as fast as 32 connections can.
async fn full(port: u16, checks: &Arc<Vec<Vec<u8>>>) -> Measured<crate::client::Load> {
    let checks = checks.clone();
    let next = move |n: usize, _: Option<&Answer>| checks.get(n).cloned().unwrap_or_default();
    load(port, 32, Duration::from_secs(2), next).await
}

/// The 99th percentile, in milliseconds, of session checks that come at a steady pace. What comes late because the one
/// before it was late counts from when it should have begun.
async fn paced(port: u16, checks: &Arc<Vec<Vec<u8>>>) -> Measured<f64> {
    tail_at(port, checks, PACE).await
}

/// The same at a pace of so many a second.
pub(crate) async fn tail_at(port: u16, checks: &Arc<Vec<Vec<u8>>>, pace: f64) -> Measured<f64> {
    // So many that none has to send more than once in a few milliseconds: timers are no finer than one.
    let connections = ((pace / 200.0) as u32).clamp(16, 256);
    let every = Duration::from_secs_f64(f64::from(connections) / pace);
    let started = Clock::stopwatch();
    let tasks: Vec<_> = (0..connections)
        .map(|n| {
            let check = checks.get(n as usize % checks.len().max(1)).cloned().unwrap_or_default();
            tokio::spawn(async move {
                let mut client = Client::connect(port).await?;
                let (mut times, mut due) = (Vec::new(), every * n / connections);
                while due < Duration::from_secs(2) {
                    let wait = due.saturating_sub(started.elapsed());
                    let late =
                        if wait.is_zero() { started.elapsed().saturating_sub(due) } else { Duration::ZERO };
                    tokio::time::sleep(wait).await;
                    let began = Clock::stopwatch();
                    if client.send(&check).await?.status != 200 {
                        return Err("a session check was refused".to_owned());
                    }
                    times.push((late + began.elapsed()).as_secs_f64() * 1_000.0);
                    due += every;
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.map_err(|e| e.to_string())??);
    }
    Ok(quantile(&mut times, 0.99))
}
