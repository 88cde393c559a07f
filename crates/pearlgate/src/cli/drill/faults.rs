//! Each dependency, in each way in which it breaks, while people go through every flow; and how long it takes
//! until everything works again.

use std::sync::Arc;
use std::time::Duration;

use foundation::kernel::Clock;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Plan;
use super::flows::{self, Errand, Flow};
use super::report::Row;
use super::stage::Stage;
use super::tally::{BOUND, Tally};
use crate::cli::{Failure, progress};

/// The seven ways of the outage contract.
const ALL: [&str; 7] = ["down", "hang", "slow", "error", "garbage", "huge", "flaky"];
/// What people do at a time.
const WAVE: [Flow; 7] =
    [Flow::SignUp, Flow::SignUp, Flow::Login, Flow::Login, Flow::Reset, Flow::Provider, Flow::Provider];
/// The one provider that people of the drill sign in at.
const PROVIDER: &str = "oauth.dev";
/// Nothing takes longer to work again: a call that began before may hold on for 10 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a mail is waited for before the clock is moved once more.
const TURN: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(stage: &Arc<Stage>, plan: &Plan) -> Result<Vec<Row>, Failure> {
    let bar = progress::count("faults");
    let mut rows = Vec::new();
    for dependency in stage.client.dependencies().await? {
        for fault in ways(&dependency, plan.short) {
            bar.set_message(format!("faults; {dependency} is broken now: {fault}"));
            rows.push(broken(stage, plan, &dependency, fault).await?);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// In short two of them. What hangs is the breach service, which nobody waits for longer than a moment.
fn ways(dependency: &str, short: bool) -> &'static [&'static str] {
    match (short, dependency) {
        (false, _) => &ALL,
        (true, "breach") => &["hang", "flaky"],
        (true, _) => &["down", "flaky"],
    }
}

/// One dependency, broken in one way.
async fn broken(stage: &Arc<Stage>, plan: &Plan, dependency: &str, fault: &str) -> Result<Row, Failure> {
    // Only a sign-in at the provider needs it; only what a mail brings waits for the mail.
    let declared = (dependency == PROVIDER).then_some("provider_unavailable");
    let mail_waits = dependency.starts_with("mail.");
    let tally = Arc::new(Tally::new(BOUND, declared));
    stage.client.switch(dependency, fault).await?;
    let since = Clock::stopwatch();
    let mut waiting = Vec::new();
    for _ in 0..plan.waves {
        let (errands, _) = wave(stage, &tally).await;
        if mail_waits {
            waiting.extend(errands);
        } else {
            flows::finish_now(errands, &tally).await;
        }
    }
    sleep(plan.hold.saturating_sub(since.elapsed())).await;
    stage.client.switch(dependency, "none").await?;
    let again = works_again(stage, &tally, waiting).await?;
    if again.is_none() {
        tally.fail(&format!("something did not work again within {} s", PATIENCE.as_secs()));
    }
    Ok(Row::of(dependency, fault, &[&tally], again))
}

/// Every flow, several at a time: what now waits for a mail, and whether all of them came as far as that.
async fn wave(stage: &Arc<Stage>, tally: &Arc<Tally>) -> (Vec<Errand>, bool) {
    let mut flows = JoinSet::new();
    for flow in WAVE {
        flows.spawn(flows::begin(flow, stage.clone(), tally.clone()));
    }
    let (mut errands, mut whole) = (Vec::new(), true);
    while let Some(done) = flows.join_next().await {
        match done {
            Ok(Ok(errand)) => errands.extend(errand),
            _ => whole = false,
        }
    }
    (errands, whole)
}

/// How long it takes from the mend until what waited is done and every flow works from beginning to end.
async fn works_again(
    stage: &Arc<Stage>,
    tally: &Arc<Tally>,
    mut waiting: Vec<Errand>,
) -> Result<Option<Duration>, Failure> {
    let (since, told) = (Clock::stopwatch(), stage.told());
    while since.elapsed() < PATIENCE {
        // Between the flows, and not during one: what is good for a minute must not expire on its way.
        stage.client.advance().await?;
        let (errands, whole) = wave(stage, tally).await;
        waiting.extend(errands);
        waiting = flows::finish(waiting, TURN).await;
        if whole && waiting.is_empty() && (stage.receiver.is_none() || stage.told() > told) {
            return Ok(Some(since.elapsed()));
        }
        sleep(PAUSE).await;
    }
    Ok(None)
}
