//! With a Redis that servers share counters in: there, killed or paused in the middle of a flood, flushed under load,
//! there only later, something else in its place, broken on command. Whatever it does, limits hold, people get in, and
//! nobody is signed out.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use data_encoding::BASE64;
use foundation::outbound::Health;
use pearlgate::app::App;
use pearlgate::limits::SIGN_IN_NETWORK;
use pearlgate::server::Running;
use reqwest::{Method, RequestBuilder};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::api::{Api, registration};
use super::child::{self, Guarded, PATIENCE, pearlgate, serve};
use super::smtp::SmtpServer;
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp, environment, together, until};

const LOGIN: &str = "/v1/auth/login";
/// So many sign-ins a network may try, and then one a day: moving the clock by minutes lets nothing flow in.
const COUNT: usize = 100;
/// A tenth more than that is what a Redis that goes away may cost.
const MOST: usize = COUNT + COUNT / 10;
const DAY: Duration = Duration::from_secs(86_400);
/// The longest that a dependency is left alone.
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
/// What operators read while Redis is away.
const DEGRADED: &str = "limits are counted in each server's memory and in the database";
/// A machine that has too much to do may keep Redis from answering in its 20 ms, in the middle of a story in which it
/// was to be there. Then the story is told anew, by another network, and so often at most.
const TELLINGS: usize = 6;

/// A Redis that a test may break: its own program, its own port, gone with the test.
struct OwnRedis {
    port: u16,
    dir: tempfile::TempDir,
    running: Option<Guarded>,
}

/// How it goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Break {
    /// From one moment to the next, and everything that it knew with it.
    Killed,
    /// It is there, and says nothing.
    Paused,
}

impl OwnRedis {
    /// Prepared and not running.
    fn away() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { port, dir: tempfile::tempdir().unwrap(), running: None }
    }

    async fn there() -> Self {
        let mut redis = Self::away();
        redis.start().await;
        redis
    }

    async fn start(&mut self) {
        let mut command = Command::new(environment("PEARLGATE_TEST_REDIS_SERVER"));
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"])
            .args(["--save", "", "--appendonly", "no", "--logfile"])
            .arg(self.dir.path().join("log"))
            .arg("--dir")
            .arg(self.dir.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.running = Some(Guarded(child.unwrap()));
        let redis = &*self;
        let answers = || async { (redis.say("PING").await.ok()? == "+PONG").then_some(()) };
        child::until("Redis answers", PATIENCE, answers).await;
    }

    fn goes(&mut self, how: Break) {
        match how {
            Break::Killed => self.running.take().unwrap().kill(),
            Break::Paused => self.running.as_ref().unwrap().signal(Signal::STOP),
        }
    }

    async fn comes_back(&mut self, from: Break) {
        match from {
            Break::Killed => self.start().await,
            Break::Paused => self.running.as_ref().unwrap().signal(Signal::CONT),
        }
    }

    /// What it answers to one line, on a connection of its own.
    async fn say(&self, line: &str) -> std::io::Result<String> {
        let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await?);
        stream.write_all(format!("{line}\r\n").as_bytes()).await?;
        let mut first = String::new();
        stream.read_line(&mut first).await?;
        let Some(length) = first.strip_prefix('$') else { return Ok(first.trim_end().to_owned()) };
        let mut text = vec![0; length.trim_end().parse().unwrap()];
        stream.read_exact(&mut text).await?;
        Ok(String::from_utf8(text).unwrap())
    }

    /// How often a server has asked it about a limit.
    async fn asked(&self) -> usize {
        let stats = self.say("INFO commandstats").await.unwrap();
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.map_or(0, |calls| calls.split(',').next().unwrap().parse().unwrap())
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

/// What servers say of their Redis.
fn redis_of(server: &App) -> Health {
    let all = server.dependencies.health();
    all.into_iter().find(|one| one.name == "redis").expect("whoever has a redis.url depends on it")
}

/// The `n`th of many networks.
fn place(n: usize) -> String {
    format!("10.0.{n}.7")
}

/// The service as it is in production, on SQLite one server and on PostgreSQL two, behind a proxy that says where
/// everybody comes from. Its clock stands still until a story moves it.
struct World {
    smtp: SmtpServer,
    app: TestApp,
    twin: Option<Running>,
    pokes: AtomicUsize,
}

/// What became of a flood so far.
#[derive(Debug, Default)]
struct Seen {
    through: AtomicUsize,
    refused: AtomicUsize,
}

impl Seen {
    fn through(&self) -> usize {
        self.through.load(Ordering::SeqCst)
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

impl World {
    async fn start(engine: Engine, redis: &str) -> Self {
        let (smtp, key) = (SmtpServer::start(&[]).await, BASE64.encode(&[7; 32]));
        // Nothing but the network's limit stands in anybody's way.
        let more = format!(
            "[server]\npublic_url = \"https://accounts.example.test\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
             [secrets]\nmaster_key = \"{key}\"\n[mail.smtp]\nhost = \"localhost\"\nport = {}\n\
             [passwords.breach]\nurl = \"\"\n[redis]\nurl = \"{redis}\"\n\
             [limits.sign_in_network]\ncount = {COUNT}\nper = \"{COUNT}d\"\n\
             [limits.sign_in_everybody]\nmode = \"off\"\n[limits.sign_in]\nmode = \"off\"\n[lockout]\nmode = \"off\"\n",
            smtp.port
        );
        let app = TestApp::with(engine, false, &more).await;
        let twin = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(app.twin_with(false, &more).await),
        };
        Self { smtp, app, twin, pokes: AtomicUsize::new(0) }
    }

    async fn finish(self) {
        if let Some(twin) = self.twin {
            twin.stop().await;
        }
        self.app.finish().await;
    }

    fn servers(&self) -> Vec<&App> {
        [&self.app.app].into_iter().chain(self.twin.as_ref().map(|twin| &twin.app)).collect()
    }

    /// A request to the `n`th server, counted round and round.
    fn post(&self, n: usize, path: &str, network: &str, body: &Value) -> RequestBuilder {
        let url = self.twin.as_ref().filter(|_| n % 2 == 1).map_or(&self.app.url, |twin| &twin.url);
        self.app.client.post(format!("{url}{path}")).header("x-forwarded-for", network).json(body)
    }

    /// Somebody with an account, who comes from a network of their own.
    async fn person(&self, email: &str) -> Person {
        let home = "192.0.2.1";
        let registered = self.app.send(self.post(0, "/v1/auth/register", home, &registration(email))).await;
        let code = self.smtp.message_to(email, 1).await.code();
        let proof = json!({ "verification_id": registered.str("/verification_id"), "code": code });
        let verified = self.app.send(self.post(0, "/v1/auth/verify-email", home, &proof)).await;
        assert_eq!(verified.status, 200, "{}", verified.text);
        Person::of(&verified)
    }

    /// Somebody who has nothing to do with it notices nothing: they get in, and their session goes on.
    async fn nothing_is_to_be_noticed_by(&self, person: &mut Person) {
        for n in 0..2 {
            let right = json!({ "email": person.email, "password": PASSWORD });
            let let_in = self.app.send(self.post(n, LOGIN, "192.0.2.2", &right)).await;
            assert_eq!((let_in.status, let_in.str("/user/id")), (200, person.id.clone()), "{}", let_in.text);
            let token = json!({ "refresh_token": person.refresh });
            let refreshed = self.app.send(self.post(n, "/v1/auth/refresh", "192.0.2.1", &token)).await;
            assert_eq!(refreshed.status, 200, "{}", refreshed.text);
            person.refresh = refreshed.str("/refresh_token");
            assert_eq!(self.app.get_as("/v1/me", &refreshed.str("/access_token")).await.status, 200);
        }
        assert_eq!(self.app.count("SELECT COUNT(*) FROM ended_sessions").await, 0);
    }

    /// One guess from a network, at the `n`th server: whether it was let through.
    async fn guess(&self, n: usize, network: &str) -> bool {
        let body = json!({ "email": format!("nobody{n}@ex.test"), "password": "seven quiet orange rivers" });
        let answer = self.app.send(self.post(n, LOGIN, network, &body)).await;
        match answer.refusal().as_str() {
            "401 invalid_credentials" => true,
            "429 too_many_attempts" => false,
            other => panic!("{other}: {}", answer.text),
        }
    }

    /// Of so many guesses from a network, one after the other and at one server after the other, how many were let
    /// through.
    async fn let_through(&self, count: usize, network: &str) -> usize {
        let mut through = 0;
        for n in 0..count {
            through += usize::from(self.guess(n, network).await);
        }
        through
    }

    /// Guesses from one network, two at a time at each server, until many have been refused.
    async fn flood(&self, network: &str, seen: &Seen) {
        let several = 2 * self.servers().len();
        let guessing = |first: usize| async move {
            let mut n = first;
            while seen.refused() < COUNT / 2 {
                assert!(seen.through() < 2 * COUNT, "there is no limit any more");
                let count = if self.guess(n, network).await { &seen.through } else { &seen.refused };
                count.fetch_add(1, Ordering::SeqCst);
                n += several;
            }
        };
        together((0..several).map(guessing).collect()).await;
    }

    /// Every server counts something that nobody else does: whatever has become of Redis, it knows then.
    async fn poke(&self) {
        for server in self.servers() {
            let nobody = format!("poke {}", self.pokes.fetch_add(1, Ordering::SeqCst));
            server.limits.take(SIGN_IN_NETWORK.name, nobody.as_bytes()).await.unwrap();
        }
    }

    fn all_say(&self, state: &str) -> bool {
        self.servers().into_iter().all(|server| redis_of(server).state == state)
    }

    /// Lets time pass until every server has its Redis.
    async fn has_redis(&self) {
        let found = || async {
            self.poke().await;
            let up = self.all_say("up");
            if !up {
                self.app.clock.advance(HALF_A_MINUTE);
            }
            up
        };
        until("every server has its Redis", found).await;
        assert!(self.servers().into_iter().all(|server| redis_of(server).degraded.is_empty()));
    }

    /// Every server says that it has none, and what that means.
    fn says_that_redis_is_away(&self) {
        for server in self.servers() {
            let health = redis_of(server);
            assert_eq!((health.state, health.degraded), ("down", DEGRADED));
            assert!(!health.last_error.is_empty());
        }
    }
}

/// The servers are one, because Redis is: to the attempt, and also when something flows in.
async fn servers_share_what_is_in_redis(world: &World, redis: &OwnRedis, places: std::ops::Range<usize>) {
    for n in places {
        world.has_redis().await;
        world.app.sql("DELETE FROM limits").await;
        let counted_elsewhere = || async { world.app.count("SELECT COUNT(*) FROM limits").await > 0 };
        let (network, before) = (place(n), redis.asked().await);
        let through = [world.let_through(COUNT, &network).await, world.let_through(8, &network).await];
        if counted_elsewhere().await {
            continue;
        }
        world.app.clock.advance(DAY);
        let a_day_later = world.let_through(4, &network).await;
        if counted_elsewhere().await {
            continue;
        }
        assert_eq!((through, a_day_later), ([COUNT, 0], 1));
        let questions = redis.asked().await - before;
        assert!(questions > COUNT, "{questions} questions about {} attempts", COUNT + 12);
        return;
    }
    panic!("Redis was never there for long enough");
}

/// Writes a story once and tells it on both databases.
macro_rules! told_on_both {
    (async fn $name:ident($engine:ident: Engine) $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn story($engine: Engine) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                story(Engine::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                story(Engine::Postgres).await;
            }
        }
    };
}

told_on_both! {
    async fn servers_share_their_counters_in_redis(engine: Engine) {
        let redis = OwnRedis::there().await;
        let world = World::start(engine, &redis.url()).await;
        assert!(world.all_say("unknown"), "nobody is asked before there is something to ask");
        servers_share_what_is_in_redis(&world, &redis, 0..TELLINGS).await;
        assert_ne!(redis.say("DBSIZE").await.unwrap(), ":0");
        world.finish().await;
    }
}

/// A flood from one network, and in the middle of it Redis goes away; the network, and how many were let through.
async fn flood_without_end(world: &World, redis: &mut OwnRedis, how: Break) -> (String, usize) {
    for n in 0..TELLINGS {
        world.has_redis().await;
        let (network, seen) = (place(n), Seen::default());
        let middle = async {
            until("half of it is used", || async { seen.through() >= COUNT / 2 }).await;
            let was_there = world.all_say("up") && seen.refused() == 0;
            redis.goes(how);
            was_there
        };
        let ((), was_there) = tokio::join!(world.flood(&network, &seen), middle);
        if was_there {
            return (network, seen.through());
        }
        redis.comes_back(how).await;
    }
    panic!("Redis never kept up with a flood");
}

/// Redis goes away in the middle of a flood and comes back later.
async fn goes_away_in_a_flood(engine: Engine, how: Break) {
    let mut redis = OwnRedis::there().await;
    let world = World::start(engine, &redis.url()).await;
    let mut ada = world.person("ada@ex.test").await;
    let (network, in_the_flood) = flood_without_end(&world, &mut redis, how).await;
    let through = in_the_flood + world.let_through(COUNT / 2, &network).await;
    assert!((COUNT - COUNT / 10..=MOST).contains(&through), "{through} were let through");
    // Each of them has found out, three times in a row.
    for _ in 0..3 {
        world.poke().await;
    }
    world.says_that_redis_is_away();
    world.nothing_is_to_be_noticed_by(&mut ada).await;
    let elsewhere = place(200);
    assert_eq!(world.let_through(10, &elsewhere).await, 10, "others have what is theirs");

    redis.comes_back(how).await;
    // By now it would answer. Nobody asks: it is left alone for a moment, so that nobody waits for it.
    redis.say("PING").await.unwrap();
    let before = redis.asked().await;
    assert_eq!(world.let_through(10, &elsewhere).await, 10);
    assert_eq!(redis.asked().await, before);
    world.says_that_redis_is_away();

    world.has_redis().await;
    assert!(redis.asked().await > before);
    assert_eq!(world.let_through(8, &network).await, 0, "what was used meanwhile is used");
    servers_share_what_is_in_redis(&world, &redis, 100..100 + TELLINGS).await;
    world.nothing_is_to_be_noticed_by(&mut ada).await;
    world.finish().await;
}

told_on_both! {
    async fn a_redis_that_is_killed_in_the_middle_of_a_flood_makes_nothing_unlimited(engine: Engine) {
        goes_away_in_a_flood(engine, Break::Killed).await;
    }
}

told_on_both! {
    async fn a_redis_that_is_paused_in_the_middle_of_a_flood_makes_nothing_unlimited(engine: Engine) {
        goes_away_in_a_flood(engine, Break::Paused).await;
    }
}

/// Half of it is used while Redis is away; how much is left when it is back. Nothing when it went away by itself.
async fn used_while_it_was_away(world: &World, redis: &mut OwnRedis, n: usize, how: Break) -> Option<usize> {
    world.has_redis().await;
    redis.goes(how);
    assert_eq!(world.let_through(COUNT / 2, &place(n)).await, COUNT / 2);
    redis.comes_back(how).await;
    world.has_redis().await;
    let left = world.let_through(COUNT, &place(n)).await;
    world.all_say("up").then_some(left)
}

told_on_both! {
    async fn what_was_used_while_redis_was_away_counts_when_it_is_back(engine: Engine) {
        let mut redis = OwnRedis::there().await;
        let world = World::start(engine, &redis.url()).await;
        for (first, how) in [(0, Break::Killed), (100, Break::Paused)] {
            let mut left = None;
            for n in first..first + TELLINGS {
                if left.is_none() {
                    left = used_while_it_was_away(&world, &mut redis, n, how).await;
                }
            }
            let left = left.expect("Redis was there for long enough");
            assert!((COUNT / 2 - 1..=MOST - COUNT / 2).contains(&left), "{how:?}: {left} of {COUNT} were left");
        }
        world.finish().await;
    }
}

/// A flood from one network under which Redis forgets everything, twice; how many were let through. Nothing when it
/// went away by itself.
async fn flood_with_flushes(world: &World, redis: &OwnRedis, n: usize) -> Option<usize> {
    world.has_redis().await;
    let (network, seen) = (place(n), Seen::default());
    let flushes = async {
        for used in [COUNT / 3, COUNT / 3 * 2] {
            until("a part of it is used", || async { seen.through() >= used }).await;
            assert_eq!(redis.say("FLUSHALL").await.unwrap(), "+OK");
            assert_eq!(redis.say("SCRIPT FLUSH").await.unwrap(), "+OK");
        }
    };
    tokio::join!(world.flood(&network, &seen), flushes);
    let through = seen.through() + world.let_through(COUNT / 2, &network).await;
    world.all_say("up").then_some(through)
}

told_on_both! {
    async fn a_redis_that_forgets_everything_under_load_makes_nobody_forget(engine: Engine) {
        let redis = OwnRedis::there().await;
        let world = World::start(engine, &redis.url()).await;
        let mut ada = world.person("ada@ex.test").await;
        let mut through = None;
        for n in 0..TELLINGS {
            if through.is_none() {
                through = flood_with_flushes(&world, &redis, n).await;
            }
            world.nothing_is_to_be_noticed_by(&mut ada).await;
        }
        let through = through.expect("Redis was there for long enough");
        assert!((COUNT - COUNT / 10..=MOST).contains(&through), "{through} were let through");
        world.finish().await;
    }
}

told_on_both! {
    async fn a_server_starts_without_its_redis_and_finds_it_when_it_comes(engine: Engine) {
        let mut redis = OwnRedis::away();
        let world = World::start(engine, &redis.url()).await;
        assert_eq!(world.app.get("/health/ready").await.status, 200);
        let mut ada = world.person("ada@ex.test").await;
        // The database alone counts to the attempt.
        assert_eq!(world.let_through(COUNT + 8, &place(0)).await, COUNT);
        world.says_that_redis_is_away();
        world.nothing_is_to_be_noticed_by(&mut ada).await;
        redis.start().await;
        world.has_redis().await;
        assert_eq!(world.let_through(8, &place(0)).await, 0);
        servers_share_what_is_in_redis(&world, &redis, 1..1 + TELLINGS).await;
        world.nothing_is_to_be_noticed_by(&mut ada).await;
        world.finish().await;
    }
}

/// Something that listens where Redis should, and is none.
struct Impostor {
    port: u16,
    met: Arc<AtomicUsize>,
    listening: JoinHandle<()>,
}

impl Impostor {
    /// Says one of these to everybody who connects, in turn, and nothing after it; without words nothing at all.
    async fn start(words: &'static [&'static [u8]]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, met) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
        let count = met.clone();
        let listening = tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let nth = count.fetch_add(1, Ordering::SeqCst);
                if !words.is_empty() {
                    let _ = stream.write_all(words[nth % words.len()]).await;
                    let _ = stream.shutdown().await;
                }
                // Whoever closes what still has something to read takes back what was said.
                kept.push(stream);
            }
        });
        Self { port, met, listening }
    }

    fn met(&self) -> usize {
        self.met.load(Ordering::SeqCst)
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Other protocols; answers to nothing that was asked; an answer without end; bytes.
const NONSENSE: [&[u8]; 10] = [
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"-ERR unknown command\r\n-ERR unknown command\r\n-ERR unknown command\r\n",
    b"-NOAUTH Authentication required.\r\n",
    b"+OK\r\n+OK\r\n+OK\r\n",
    b"+OK\r\n+OK\r\n*2\r\n:1\r\n$6\r\nnumber\r\n",
    b"$1000000000\r\n",
    b"*1000000000\r\n",
    b"\r\n\r\n\r\n",
    b"\x16\x03\x01\xff\xfe\x00\x00",
];

told_on_both! {
    async fn something_that_talks_nonsense_is_no_redis(engine: Engine) {
        let impostor = Impostor::start(&NONSENSE).await;
        let world = World::start(engine, &impostor.url()).await;
        let mut ada = world.person("ada@ex.test").await;
        let all = 2 * NONSENSE.len() * world.servers().len();
        until("every server has heard all of it", || async {
            world.app.clock.advance(HALF_A_MINUTE);
            world.poke().await;
            impostor.met() >= all
        })
        .await;
        assert_eq!(world.let_through(COUNT + 8, &place(0)).await, COUNT);
        world.says_that_redis_is_away();
        world.nothing_is_to_be_noticed_by(&mut ada).await;
        world.finish().await;
    }
}

told_on_both! {
    async fn something_that_says_nothing_is_no_redis(engine: Engine) {
        let impostor = Impostor::start(&[]).await;
        let world = World::start(engine, &impostor.url()).await;
        let mut ada = world.person("ada@ex.test").await;
        assert_eq!(world.let_through(COUNT + 8, &place(0)).await, COUNT);
        assert!(impostor.met() >= world.servers().len(), "every server has tried");
        world.says_that_redis_is_away();
        world.nothing_is_to_be_noticed_by(&mut ada).await;
        // Time and again.
        for _ in 0..10 {
            world.app.clock.advance(HALF_A_MINUTE);
            world.poke().await;
            world.says_that_redis_is_away();
        }
        assert_eq!(world.let_through(8, &place(0)).await, 0);
        world.finish().await;
    }
}

/// The ways to be broken of dev mode's switch.
const FAULTS: [&str; 7] = ["down", "hang", "slow", "error", "garbage", "huge", "flaky"];

told_on_both! {
    async fn a_redis_that_is_broken_on_command_is_nothing_to_anybody(engine: Engine) {
        let redis = OwnRedis::there().await;
        let url = redis.url();
        let more = format!(
            "[redis]\nurl = \"{url}\"\n[limits.refresh]\ncount = 8\nper = \"8h\"\n\
             [limits.sign_in_network]\ncount = 100\nper = \"100d\"\n"
        );
        let app = TestApp::with(engine, true, &more).await;
        let ada = app.person("ada@ex.test").await;
        let health = || async {
            let answer = app.get("/health/dependencies").await;
            let items = answer.json["items"].as_array().unwrap();
            items.iter().find(|item| item["name"] == "redis").unwrap().clone()
        };
        let mut sign_ins = 0;
        for fault in FAULTS {
            app.put_fault("redis", fault).await;
            let mut token = String::new();
            for _ in 0..3 {
                let let_in = app.login(&ada.email, PASSWORD).await;
                assert_eq!(let_in.status, 200, "{fault}: {}", let_in.text);
                // In dev mode a network is only told how it stands.
                sign_ins += 1;
                let stands = format!("\"sign_in_network\";r={};", 100 - sign_ins);
                assert!(let_in.header("ratelimit").starts_with(&stands), "{fault}: {}", let_in.header("ratelimit"));
                token = let_in.str("/refresh_token");
            }
            // A session is held to what it may.
            for n in 0..12 {
                let answer = app.refresh(&token).await;
                if n < 8 {
                    assert_eq!(answer.status, 200, "{fault} {n}: {}", answer.text);
                    token = answer.str("/refresh_token");
                } else {
                    assert_eq!(answer.refusal(), "429 too_many_attempts", "{fault} {n}");
                }
            }
            let broken = health().await;
            if fault != "flaky" {
                assert_eq!((&broken["state"], &broken["degraded"]), (&json!("down"), &json!(DEGRADED)), "{fault}");
                assert!(!broken["last_error"].as_str().unwrap().is_empty(), "{fault}");
            }
            app.put_fault("redis", "none").await;
            until("Redis is there again", || async {
                let now = app.clock.advance(HALF_A_MINUTE).to_string();
                app.app.limits.take(SIGN_IN_NETWORK.name, now.as_bytes()).await.unwrap();
                let mended = health().await;
                mended["state"] == "up" && mended["degraded"] == ""
            })
            .await;
            assert_eq!(app.refresh(&token).await.refusal(), "429 too_many_attempts", "{fault}: what was used is used");
        }
        app.finish().await;
    }
}

/// How often calls to Redis had this outcome, as a server's metrics have it.
async fn calls(internal: &Api, outcome: &str) -> u64 {
    let metrics = internal.get("/metrics").await.text;
    let outcome = format!("outcome=\"{outcome}\"");
    let mut counters = metrics.lines().filter(|line| {
        line.starts_with("outbound_calls_total{")
            && line.contains("dependency=\"redis\"")
            && line.contains(&outcome)
    });
    counters.next().map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

async fn state(internal: &Api) -> String {
    let answer = internal.get("/health/dependencies").await;
    let items = answer.json["items"].as_array().unwrap();
    let redis = items.iter().find(|item| item["name"] == "redis").unwrap();
    redis["state"].as_str().unwrap().to_owned()
}

/// A sign-in of nobody's.
async fn guess(api: &Api) -> Answer {
    let body = json!({ "email": "nobody@example.com", "password": PASSWORD });
    api.send(api.request(Method::POST, LOGIN).json(&body)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_answer_is_spared_after_three_questions() {
    let (dir, mut redis) = (tempfile::tempdir().unwrap(), OwnRedis::there().await);
    let server = serve(dir.path())
        .set("server.internal_listen", "127.0.0.1:0")
        .set("redis.url", &redis.url())
        .set("limits.sign_in_network.count", "100000")
        .set("limits.sign_in_everybody.mode", "off")
        .set("limits.sign_in.mode", "off")
        .set("lockout.mode", "off");
    let server = server.start().await;
    let internal = server.internal().await;
    let found = || async {
        assert_eq!(guess(&server.api).await.refusal(), "401 invalid_credentials");
        (state(&internal).await == "up").then_some(())
    };
    child::until("the server has its Redis", PATIENCE, found).await;
    redis.goes(Break::Paused);
    let before = (calls(&internal, "failed").await, calls(&internal, "spared").await);
    // One question each.
    for _ in 0..10 {
        assert_eq!(guess(&server.api).await.refusal(), "401 invalid_credentials");
    }
    let failed = calls(&internal, "failed").await - before.0;
    let spared = calls(&internal, "spared").await - before.1;
    assert!(failed >= 3 && spared >= 1 && failed + spared == 10, "{failed} failed and {spared} were spared");
    assert_eq!(state(&internal).await, "down");
    redis.comes_back(Break::Paused).await;
    child::until("the server has its Redis again", PATIENCE, found).await;
    server.stop().await;
}

/// The address holds a password that Redis knows nothing of: it refuses, and nobody reads it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_redis_refuses_is_nowhere_to_be_read() {
    let (dir, redis) = (tempfile::tempdir().unwrap(), OwnRedis::there().await);
    let url = redis.url().replace("//", "//ada:lovelace@");
    let server = serve(dir.path())
        .set("server.internal_listen", "127.0.0.1:0")
        .set("log.level", "debug")
        .set("redis.url", &url);
    let server = server.start().await;
    let internal = server.internal().await;
    for _ in 0..4 {
        assert_eq!(guess(&server.api).await.refusal(), "401 invalid_credentials");
    }
    server.err.with("a dependency went away").await;
    let said = [internal.get("/health/dependencies").await.text, internal.get("/metrics").await.text];
    assert!(said[0].contains("\"down\""), "{}", said[0]);
    for line in server.err.all().iter().chain(&said) {
        assert!(!line.contains("lovelace"), "{line}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_and_a_good_one_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for (bad, words) in [
        ("nonsense", "redis://host:6379"),
        ("localhost:6379", "redis://host:6379"),
        ("http://ada:lovelace@redis.example.com:6379", "redis://host:6379"),
        ("redis://ada:lovelace@redis.example.com:port", "redis://host:6379"),
        ("redis://ada:lovelace@redis.example.com:6379/first", "redis://host:6379"),
        ("redis://ada:lovelace@0.0.0.0:6379", "redis://host:6379"),
        ("rediss://ada:lovelace@redis.example.com:6379/#insecure", "TLS"),
        ("rediss://ada:lovelace@redis.example.com:6379/#other", "redis://host:6379"),
    ] {
        let refused = serve(&data).set("redis.url", bad).run().await;
        refused.refused(&["PEARLGATE__REDIS__URL", "redis.url", words]);
        assert!(!refused.err.contains("lovelace"), "{}", refused.err);
        assert!(!data.exists(), "{bad}: refused settings leave nothing behind");
    }
    let nowhere = serve(&data).set("limits.store", "redis").run().await;
    nowhere.refused(&["PEARLGATE__LIMITS__STORE", "`limits.store`", "redis.url"]);

    let url = "rediss://ada:lovelace@redis.example.com:6379/1";
    let shown = pearlgate(&["config", "show"]).set("redis.url", url).run().await;
    let table: toml::Table = shown.went_well().parse().unwrap();
    assert_eq!(table["redis"]["url"].as_str(), Some("(hidden)"));
    assert!(!shown.out.contains("lovelace") && !shown.err.contains("lovelace"), "{shown:?}");
}
