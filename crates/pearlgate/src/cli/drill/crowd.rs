//! Many people who are signed in and active, before, while and after everything outside is away at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foundation::kernel::Clock;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Plan;
use super::client::Visitor;
use super::flows::{PASSWORD, Tokens};
use super::report::{Crowd, Phase};
use super::stage::{Stage, for_all};
use super::tally::{BOUND, Step, Tally};
use crate::cli::{Failure, progress};

/// Requests a second of one person at the most: people click, and a session has a limit.
const PACE_OF_ONE: f64 = 1.5;
/// Lanes that requests come in; within one they come one after the other.
const LANES: u32 = 32;
/// One request in so many is a sign-in, a registration or the wish for a reset, in turn.
const RARE: u32 = 60;
/// Logins at a time for each core, while people come.
const COMING: u32 = 4;
/// A login that is turned away so long is not coming through.
const PATIENCE: Duration = Duration::from_secs(60);

/// Somebody with a session.
struct Member {
    number: u32,
    email: String,
    tokens: Tokens,
    /// Since when the access token is good.
    since: Instant,
    turn: u32,
}

type Lane = VecDeque<Member>;

pub(super) async fn run(stage: &Arc<Stage>, plan: &Plan) -> Result<Crowd, Failure> {
    let mut lanes = in_lanes(sign_in(stage).await?);
    let names = ["before", "during", "after"];
    let mut phases = Vec::new();
    for (name, time) in names.into_iter().zip(plan.phases) {
        let tally = Arc::new(Tally::new(BOUND, None));
        let worsening = async {
            if name == "during" {
                stage.client.switch_all("down").await?;
                sleep(time / 2).await;
                stage.client.switch_all("hang").await?;
            }
            Ok::<_, Failure>(())
        };
        let (still, worse) = tokio::join!(active(stage, lanes, (time, plan.pace), &tally), worsening);
        worse?;
        stage.client.switch_all("none").await?;
        phases.push(Phase::of(name, &tally.counts()));
        lanes = still;
    }
    let last = Arc::new(Tally::new(BOUND, None));
    let good = still_good(stage, lanes, &last).await;
    Ok(Crowd { people: stage.cast.people, phases, good, reasons: last.counts().reasons() })
}

/// Everybody signs in for real. That is before anything is measured: who is told to wait waits.
async fn sign_in(stage: &Arc<Stage>) -> Result<Vec<Member>, Failure> {
    let people = stage.cast.people;
    let bar = progress::count("").with_message(format!("of {people} people signed in"));
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get().min(64)) as u32;
    let (inner, moving) = (stage.clone(), bar.clone());
    let members = for_all(people, COMING * cores, move |number| {
        let (stage, bar) = (inner.clone(), moving.clone());
        async move {
            let member = come(&stage, number).await?;
            bar.inc(1);
            Ok::<_, Failure>(member)
        }
    });
    let members = members.await;
    bar.finish_and_clear();
    members
}

async fn come(stage: &Stage, number: u32) -> Result<Member, Failure> {
    let visitor = stage.at(number, &Arc::new(Tally::new(BOUND, None)));
    let (email, trying) = (stage.cast.person(number), Clock::stopwatch());
    let failed = |why: &str| Failure::Other(format!("a login before anything was measured: {why}"));
    loop {
        let answer = visitor.send(visitor.login_request(&email, PASSWORD)).await.map_err(|e| failed(&e))?;
        match (answer.status, answer.retry_after) {
            (200, _) => {
                let tokens = Tokens::of(&answer).ok_or_else(|| failed("an answer without tokens"))?;
                return Ok(Member { number, email, tokens, since: Clock::stopwatch(), turn: number });
            }
            (503, Some(wait)) if trying.elapsed() < PATIENCE => sleep(Duration::from_secs(wait)).await,
            _ => return Err(failed(&answer.refusal())),
        }
    }
}

fn in_lanes(members: Vec<Member>) -> Vec<Lane> {
    let count = members.len().clamp(1, LANES as usize);
    let mut lanes: Vec<Lane> = (0..count).map(|_| Lane::new()).collect();
    for (at, member) in members.into_iter().enumerate() {
        if let Some(lane) = lanes.get_mut(at % count) {
            lane.push_back(member);
        }
    }
    lanes
}

/// Everybody goes on, at a steady pace.
async fn active(
    stage: &Arc<Stage>,
    lanes: Vec<Lane>,
    (time, pace): (Duration, f64),
    tally: &Arc<Tally>,
) -> Vec<Lane> {
    let (count, pace) = (lanes.len() as f64, pace.min(f64::from(stage.cast.people) * PACE_OF_ONE));
    let every = Duration::from_secs_f64(count / pace);
    let mut going = JoinSet::new();
    for (number, lane) in (0..).zip(lanes) {
        let pace = Pace { number, first: every.mul_f64(f64::from(number) / count), every, time };
        going.spawn(keep_going(stage.clone(), lane, pace, tally.clone()));
    }
    all_of(going).await
}

async fn all_of<T: 'static>(mut going: JoinSet<T>) -> Vec<T> {
    let mut done = Vec::new();
    while let Some(one) = going.join_next().await {
        done.extend(one);
    }
    done
}

/// When the requests of a lane are due.
struct Pace {
    number: u32,
    first: Duration,
    every: Duration,
    time: Duration,
}

/// One request after the other. What comes late because the one before it was late, counts from when
/// it was due.
async fn keep_going(stage: Arc<Stage>, mut lane: Lane, pace: Pace, tally: Arc<Tally>) -> Lane {
    let started = Clock::stopwatch();
    // Rare requests are spread over the lanes. They take their time, and nobody else waits for them.
    let (mut due, mut count, mut rare) = (pace.first, pace.number * RARE / LANES, JoinSet::new());
    while due < pace.time
        && let Some(mut member) = lane.pop_front()
    {
        let wait = due.saturating_sub(started.elapsed());
        let late = if wait.is_zero() { started.elapsed().saturating_sub(due) } else { Duration::ZERO };
        sleep(wait).await;
        let visitor = Visitor { late, ..stage.at(member.number, &tally) };
        count += 1;
        if count.is_multiple_of(RARE) {
            let (stage, email, turn) = (stage.clone(), member.email.clone(), count / RARE + pace.number);
            rare.spawn(async move { ask_rarely(&visitor, &stage, &email, turn).await });
        } else {
            // Whatever comes of it is noted.
            let _ = member.go_on(&visitor).await;
        }
        lane.push_back(member);
        due += pace.every;
    }
    all_of(rare).await;
    lane
}

async fn ask_rarely(visitor: &Visitor, stage: &Stage, email: &str, turn: u32) -> Step<()> {
    match turn % 3 {
        0 => visitor.login(email, PASSWORD).await.map(drop),
        1 => visitor.register(&stage.cast.newcomer()).await.map(drop),
        _ => visitor.forgot(email).await,
    }
}

impl Member {
    /// What a signed-in person's application asks for, in turn.
    async fn go_on(&mut self, visitor: &Visitor) -> Step<()> {
        self.turn = self.turn.wrapping_add(1);
        let old = self.since.elapsed() > self.tokens.good_for / 2;
        match self.turn % 3 {
            0 => self.refresh(visitor).await,
            _ if old => self.refresh(visitor).await,
            1 => visitor.look("/v1/me", &self.tokens).await,
            _ => visitor.look("/v1/me/sessions", &self.tokens).await,
        }
    }

    async fn refresh(&mut self, visitor: &Visitor) -> Step<()> {
        self.tokens = visitor.refresh(&self.tokens).await?;
        self.since = Clock::stopwatch();
        Ok(())
    }
}

/// How many sessions can be refreshed once more, when all is over.
async fn still_good(stage: &Arc<Stage>, lanes: Vec<Lane>, tally: &Arc<Tally>) -> u32 {
    let mut going = JoinSet::new();
    for lane in lanes {
        let (stage, tally) = (stage.clone(), tally.clone());
        going.spawn(async move {
            let mut good = 0;
            for mut member in lane {
                let visitor = stage.at(member.number, &tally);
                good += u32::from(member.refresh(&visitor).await.is_ok());
            }
            good
        });
    }
    all_of(going).await.into_iter().sum()
}
