//! Mail goes through whoever takes it: one provider after the other, at their pace, and not to where nobody can be reached.

use std::time::Duration;

use data_encoding::BASE64;
use foundation::kernel::{Clock, Timestamp};
use foundation::mail;
use pearlgate::mailing;
use serde_json::{Value, json};

use crate::support::carrier::{Carrier, Manner};
use crate::support::{Answer, Engine, PASSWORD, Person, TestApp, production};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
/// The signing secret of the first provider's events.
const EVENTS: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ADA: &str = "ada@example.com";

/// A server with two providers: Resend's API first, Postmark's second.
struct World {
    app: TestApp,
    first: Carrier,
    second: Carrier,
}

impl World {
    /// What more stands in the sections of the two, and above them.
    async fn start(engine: Engine, of_first: &str, of_second: &str, more: &str) -> Self {
        let (first, second) = (Carrier::start().await, Carrier::start().await);
        let settings = format!(
            "{more}\n[mailers.first]\nkind = \"resend\"\nkey = \"re_1\"\nurl = {:?}\nevents_secret = {EVENTS:?}\n{of_first}\n\
             [mailers.second]\nkind = \"postmark\"\nkey = \"pm_2\"\nurl = {:?}\n{of_second}\n",
            first.url, second.url
        );
        let chain = "[mail]\nchain = [\"first\", \"second\"]\n";
        let app = TestApp::with(engine, false, &production("", &format!("{chain}{settings}"))).await;
        Self { app, first, second }
    }

    /// Registers and proves the address, whoever carries the mail.
    async fn person(&self, email: &str) -> Person {
        let verification = self.app.register(email).await.str("/verification_id");
        let mail = tokio::select! {
            mail = self.first.mail(email, 1) => mail,
            mail = self.second.mail(email, 1) => mail,
        };
        let body = json!({ "verification_id": verification, "code": mail.code() });
        Person::of(&self.app.post("/v1/auth/verify-email", body).await)
    }

    async fn forgot(&self, email: &str) {
        // Later than whatever was mailed before.
        self.app.clock.advance(Duration::from_secs(1));
        assert_eq!(self.app.post("/v1/auth/forgot-password", json!({ "email": email })).await.status, 202);
    }

    /// What became of the newest mail to somebody.
    async fn became(&self, to: &str) -> mail::Delivery {
        let now = self.app.clock.now() + Duration::from_secs(1);
        mail::list(&self.app.app.db, Some(to.to_owned()), now, 1).await.unwrap().remove(0)
    }

    async fn until_it_is(&self, to: &str, state: &str) -> mail::Delivery {
        self.app.until(state, || async { self.became(to).await.state == state }).await;
        self.became(to).await
    }

    async fn notices(&self, person: &Person) -> Value {
        self.app.get_as("/v1/me", &person.access).await.json["notices"].clone()
    }

    fn health(&self, name: &str) -> foundation::outbound::Health {
        self.app.app.dependencies.health().into_iter().find(|one| one.name == name).unwrap()
    }

    async fn finish(self) {
        self.app.finish().await;
    }
}

/// Writes a test once and runs it on both databases.
macro_rules! carried {
    ($first:expr, $second:expr, $more:expr; async fn $name:ident($world:ident: &World) $body:block) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            async fn run(engine: Engine) {
                let world = World::start(engine, $first, $second, $more).await;
                story(&world).await;
                world.finish().await;
            }
            async fn story($world: &World) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run(Engine::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                run(Engine::Postgres).await;
            }
        }
    };
}

carried! { "", "", "";
    async fn what_the_first_does_not_take_goes_to_the_next_at_once(world: &World) {
        let World { app, first, second } = world;
        world.person(ADA).await;
        assert_eq!((first.taken().len(), second.asked()), (1, 0), "the second one is not asked for nothing");
        for (n, manner) in [Manner::Break, Manner::Enough, Manner::WrongKey].into_iter().enumerate() {
            first.be(manner);
            let to = format!("p{n}@example.com");
            app.register(&to).await;
            second.mail(&to, 1).await;
        }
        assert_eq!((first.asked(), world.health("mail.first").state), (4, "down"));
        // Three in a row: it is left alone, and nobody waits for it.
        app.register("later@example.com").await;
        second.mail("later@example.com", 1).await;
        app.quiet().await;
        assert_eq!(first.asked(), 4);
        assert_eq!(world.health("mail.first").short_circuited, 1);
        assert_eq!(world.became("later@example.com").await.provider, "second");
        first.be(Manner::Take);
        app.clock.advance(MINUTE);
        app.register("again@example.com").await;
        let mail = first.mail("again@example.com", 1).await;
        app.until("it is up", || async { world.health("mail.first").state == "up" }).await;
        assert_eq!(mail.headers["authorization"], "Bearer re_1");
        let sent = world.until_it_is("again@example.com", "sent").await;
        assert_eq!((sent.provider.as_str(), sent.reference.starts_with("re-")), ("first", true));
        // Whoever asks twice is told that it is the same mail.
        assert_eq!(mail.headers["idempotency-key"], sent.id.to_string().as_str());
    }
}

carried! { "", "", "";
    async fn when_nobody_takes_it_it_waits_and_goes_out_once(world: &World) {
        let World { app, first, second } = world;
        [first, second].into_iter().for_each(|one| one.be(Manner::Break));
        let verification = app.register(ADA).await.str("/verification_id");
        let slow = || async { app.get(&format!("/v1/auth/verifications/{verification}")).await.str("/mail") };
        second.was_asked(1).await;
        app.until("it is known", || async { world.health("mail.second").state == "down" }).await;
        assert_eq!(slow().await, "sent", "a moment is not slow");
        app.clock.advance(MINUTE + Duration::from_secs(1));
        assert_eq!(slow().await, "slow");
        let nobody = format!("/v1/auth/verifications/ver_{}", "0".repeat(32));
        assert_eq!(app.get(&nobody).await.str("/mail"), "slow", "it says nothing of anybody");
        assert_eq!(app.get("/v1/auth/verifications/ada").await.status, 404);
        second.be(Manner::Take);
        // Whichever try is under way just now.
        app.until("it is taken", || async {
            app.clock.advance(MINUTE / 2);
            second.taken().len() == 1
        })
        .await;
        let mail = second.mail(ADA, 1).await;
        world.until_it_is(ADA, "sent").await;
        app.quiet().await;
        assert_eq!((first.taken().len(), second.taken().len()), (0, 1));
        assert_eq!(slow().await, "sent");
        let body = json!({ "verification_id": verification, "code": mail.code() });
        assert_eq!(app.post("/v1/auth/verify-email", body).await.status, 200);
        first.be(Manner::Take);
    }
}

carried! { "", "", "";
    async fn a_mail_that_has_lost_its_use_is_dropped(world: &World) {
        let World { app, first, second } = world;
        world.person(ADA).await;
        [first, second].into_iter().for_each(|one| one.be(Manner::Break));
        world.forgot(ADA).await;
        second.was_asked(1).await;
        app.mails_wait(1).await;
        app.clock.advance(16 * MINUTE);
        let gone = world.until_it_is(ADA, "given_up").await;
        assert_eq!((gone.kind.as_str(), gone.detail.contains("no use")), ("password_reset", true), "{gone:?}");
        [first, second].into_iter().for_each(|one| one.be(Manner::Take));
        app.clock.advance(10 * MINUTE);
        world.forgot(ADA).await;
        first.mail(ADA, 2).await;
        app.quiet().await;
        assert_eq!(first.taken().len() + second.taken().len(), 2, "the old code is told to nobody");
        app.sql("DELETE FROM dead_jobs").await;
    }
}

carried! { "quota = \"2/6h\"", "quota = \"1/6h\"", "";
    async fn a_provider_is_given_no_more_than_its_quota(world: &World) {
        let World { app, first, second } = world;
        for n in 0..4 {
            app.register(&format!("p{n}@example.com")).await;
            app.until("it is looked at", || async {
                first.asked() + second.asked() == (n + 1).min(3)
            }).await;
        }
        assert_eq!((first.taken().len(), second.taken().len()), (2, 1));
        let later = "SELECT COUNT(*) FROM jobs WHERE kind = 'mail.deliver' AND attempts = 0 AND run_at > deadline_at - 90000000000";
        app.until("it waits for the next span", || async { app.count(later).await == 1 }).await;
        assert_eq!(world.became("p3@example.com").await.state, "waiting");
        assert!(["mail.first", "mail.second"].iter().all(|name| world.health(name).state == "up"), "nobody is at fault");
        app.clock.advance(DAY / 4);
        first.mail("p3@example.com", 1).await;
        app.quiet().await;
        assert_eq!((first.asked(), second.asked()), (3, 1), "once, and not again and again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_domain_is_given_no_more_than_its_pace() {
    let (first, chain) = (Carrier::start().await, "[mail]\nchain = [\"one\"]\nper_domain = \"2/1m\"\n");
    let mailer = format!("[mailers.one]\nkind = \"resend\"\nkey = \"re_1\"\nurl = {:?}\n", first.url);
    let app = TestApp::with(Engine::Sqlite, false, &production("", &format!("{chain}{mailer}"))).await;
    for to in ["a@slow.test", "b@slow.test", "c@slow.test", "d@Slow.test", "e@other.test"] {
        app.register(to).await;
    }
    first.mail("e@other.test", 1).await;
    let of_slow =
        || first.taken().iter().filter(|mail| mail.to().to_lowercase().ends_with("@slow.test")).count();
    app.until("two went", || async { of_slow() == 2 }).await;
    assert_eq!(of_slow(), 2);
    // What waits is spread over the spans that it needs.
    app.until("the other two went", || async {
        app.clock.advance(MINUTE / 2);
        of_slow() == 4
    })
    .await;
    app.finish().await;
}

carried! { "", "", "";
    async fn an_address_at_which_nobody_can_be_reached_is_left_alone_and_its_owner_sees_that(world: &World) {
        let World { app, first, second } = world;
        let ada = world.person(ADA).await;
        assert_eq!(world.notices(&ada).await, json!([]));
        first.be(Manner::NoSuchAddress);
        world.forgot("Ada@Example.com").await;
        let gone = world.until_it_is(ADA, "bounced").await;
        assert_eq!((gone.provider.as_str(), second.asked()), ("first", 0), "nobody else is asked to try");
        let notices = world.notices(&ada).await;
        assert_eq!(notices[0]["code"], "email_unreachable");
        assert!(notices[0]["message"].as_str().unwrap().contains(ADA), "{notices}");
        first.be(Manner::Take);
        app.clock.advance(20 * MINUTE);
        world.forgot(ADA).await;
        world.until_it_is(ADA, "suppressed").await;
        assert_eq!(first.asked(), 2, "it is not even tried");
        assert!(mailing::lift(&app.app, "ADA@example.com").await.unwrap());
        assert!(!mailing::lift(&app.app, ADA).await.unwrap(), "once");
        app.clock.advance(20 * MINUTE);
        world.forgot(ADA).await;
        first.mail(ADA, 2).await;
        let ada = Person::of(&app.login(ADA, PASSWORD).await);
        assert_eq!(world.notices(&ada).await, json!([]));
        app.quiet().await;
        app.sql("DELETE FROM dead_jobs").await;
    }
}

carried! { "", "", "";
    async fn what_a_provider_says_of_one_mail_leaves_it_alone_for_nobody(world: &World) {
        let World { app, first, second } = world;
        first.be(Manner::NotThisOne);
        for n in 0..5 {
            app.register(&format!("p{n}@example.com")).await;
            second.mail(&format!("p{n}@example.com"), 1).await;
        }
        assert_eq!((first.asked(), world.health("mail.first").short_circuited), (5, 0), "it is there");
        first.be(Manner::Take);
        app.register(ADA).await;
        first.mail(ADA, 1).await;
    }
}

carried! { "quota = \"3/24h\"", "quota = \"3/24h\"", "per_domain = \"4/24h\"";
    async fn an_outage_spends_no_quota(world: &World) {
        let World { app, first, second } = world;
        [first, second].into_iter().for_each(|one| one.be(Manner::Break));
        app.register(ADA).await;
        app.mails_wait(1).await;
        for _ in 0..12 {
            app.mails_wait(1).await;
            let asked = first.asked() + second.asked();
            app.clock.advance(6 * MINUTE);
            app.until("it is tried again", || async { first.asked() + second.asked() > asked }).await;
        }
        let before = first.asked() + second.asked();
        assert!(before > 12, "far more often than the quotas allow mails: {before}");
        [first, second].into_iter().for_each(|one| one.be(Manner::Take));
        app.until("it is taken", || async {
            app.clock.advance(MINUTE);
            first.taken().len() + second.taken().len() == 1
        }).await;
        for n in 0..3 {
            app.register(&format!("p{n}@example.com")).await;
        }
        app.until("three more have room", || async {
            app.clock.advance(MINUTE);
            first.taken().len() + second.taken().len() == 4
        }).await;
        app.quiet().await;
    }
}

/// An event as Resend tells it, signed as Svix signs.
async fn tell(world: &World, id: &str, at: Timestamp, event: &Value, secret: &str) -> Answer {
    let body = event.to_string();
    let key = BASE64.decode(secret.trim_start_matches("whsec_").as_bytes()).unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &key);
    let signed = aws_lc_rs::hmac::sign(&key, format!("{id}.{}.{body}", at.seconds()).as_bytes());
    let request = world.app.client.post(format!("{}/v1/hooks/mail/first", world.app.url));
    let request = request
        .header("svix-id", id)
        .header("svix-timestamp", at.seconds().to_string())
        .header("svix-signature", format!("v1,{}", BASE64.encode(signed.as_ref())))
        .header("content-type", "application/json");
    world.app.send(request.body(body)).await
}

fn event(kind: &str, to: &str, reference: &str) -> Value {
    let bounce = json!({ "type": "Permanent", "subType": "General", "message": "There is no such mailbox." });
    json!({
        "type": kind, "created_at": "2026-11-23T08:00:00.000Z",
        "data": { "email_id": reference, "to": [to], "from": "x@example.com", "subject": "x", "bounce": bounce },
    })
}

carried! { "", "", "";
    async fn what_a_provider_tells_afterwards_is_heard_once(world: &World) {
        let World { app, .. } = world;
        let ada = world.person(ADA).await;
        let sent = world.until_it_is(ADA, "sent").await;
        let now = app.clock.now();
        let told = tell(world, "msg_1", now, &event("email.delivered", ADA, &sent.reference), EVENTS).await;
        assert_eq!((told.status, world.became(ADA).await.state.as_str()), (204, "delivered"), "{}", told.text);
        let bounced = event("email.bounced", ADA, &sent.reference);
        assert_eq!(tell(world, "msg_2", now, &bounced, EVENTS).await.status, 204);
        assert_eq!(world.became(ADA).await.state, "bounced");
        assert_eq!(world.notices(&ada).await[0]["code"], "email_unreachable");
        assert!(mailing::lift(&app.app, ADA).await.unwrap());
        assert_eq!(tell(world, "msg_2", now, &bounced, EVENTS).await.status, 204);
        assert_eq!(world.notices(&ada).await, json!([]), "what is told twice is heard once");
        let complained = event("email.complained", ADA, &sent.reference);
        assert_eq!(tell(world, "msg_3", now, &complained, EVENTS).await.status, 204);
        assert_eq!(world.notices(&ada).await[0]["code"], "email_unreachable");
    }
}

carried! { "", "", "";
    async fn cve_2025_59538_forged_events_take_nobodys_mail_away(world: &World) {
        let World { app, .. } = world;
        let ada = world.person(ADA).await;
        let sent = world.until_it_is(ADA, "sent").await;
        let (now, bounced) = (app.clock.now(), event("email.bounced", ADA, &sent.reference));
        let other = format!("whsec_{}", BASE64.encode(&[7; 24]));
        let path = format!("{}/v1/hooks/mail/first", app.url);
        let bare = || app.client.post(&path).header("content-type", "application/json");
        let refused = [
            tell(world, "msg_1", now, &bounced, &other).await,
            tell(world, "msg_1", now - 6 * MINUTE, &bounced, EVENTS).await,
            tell(world, "msg_1", now + 6 * MINUTE, &bounced, EVENTS).await,
            app.send(bare().body(bounced.to_string())).await,
            app.send(bare().body("")).await,
            app.send(bare().header("svix-id", "x").header("svix-timestamp", "soon").header("svix-signature", "v1,").body("{}")).await,
        ];
        for answer in &refused {
            assert_eq!(answer.refusal(), "401 token_invalid", "{}", answer.text);
        }
        // Whoever is still sending reads it as well: the connection is not cut under them.
        for _ in 0..20 {
            let huge = app.send(bare().body("x".repeat(2 << 20))).await;
            assert_eq!(huge.refusal(), "413 payload_too_large");
        }
        for nobody in ["second", "nobody", "primary", "%00"] {
            let request = app.client.post(format!("{}/v1/hooks/mail/{nobody}", app.url));
            assert_eq!(app.send(request.body(bounced.to_string())).await.status, 404, "{nobody} tells nothing");
        }
        // Well signed, and not about a mail of ours.
        let stranger = event("email.bounced", "nobody@example.com", "re-77");
        assert_eq!(tell(world, "msg_9", now, &stranger, EVENTS).await.status, 204);
        let odd = [json!([]), json!({}), json!({ "type": "email.bounced" }), json!({ "type": 7, "data": null })];
        for (n, odd) in odd.iter().enumerate() {
            assert!(tell(world, &format!("msg_odd{n}"), now, odd, EVENTS).await.status < 500);
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM mail_suppressions").await, 0);
        assert_eq!(world.notices(&ada).await, json!([]));
        assert_eq!(world.became(ADA).await.state, "sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_became_of_mails_is_remembered_for_a_month() {
    let world = World::start(Engine::Sqlite, "", "", "").await;
    world.person(ADA).await;
    world.until_it_is(ADA, "sent").await;
    world.app.quiet().await;
    let clock: &Clock = &world.app.clock;
    clock.advance(31 * DAY);
    world
        .app
        .until("it is forgotten", || async {
            world.app.count("SELECT COUNT(*) FROM mail_deliveries").await == 0
        })
        .await;
    world.finish().await;
}
