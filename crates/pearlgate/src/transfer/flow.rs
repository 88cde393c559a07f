//! Importing and exporting.

use std::io::{BufRead, Read, Write};
use std::ops::ControlFlow;
use std::sync::Arc;

use aws_lc_rs::digest;
use data_encoding::BASE32_NOPAD;
use foundation::audit::{Event, Stream, Trail};
use foundation::db::{self, Db, Tx};
use foundation::kernel::{Clock, Digest, Entropy, Id, MasterKeys, Sealer, Secret, Timestamp};
use foundation::params;
use serde_json::json;

use tokio::runtime::Handle;

use super::presets::{self, Extras, Preset};
use super::record::{Identity, Record, Suspension, Totp};
use super::store::{self, Person};
use crate::access::RoleRow;
use crate::accounts::{DisplayName, EmailAddress, Locale, Metadata, UserRow, name_key};
use crate::mfa::SEALED_FOR;
use crate::passwords;
use crate::registration::{self, Way};
use crate::settings::PeopleSettings;

/// People in one transaction.
const BATCH: usize = 500;
/// The last microsecond of the year 9999: later times have more digits and would not sort.
const LATEST: i64 = 253_402_300_799_999_999;
/// A seed of fewer bytes is no secret (RFC 4226 §4 asks for 16; some authenticators were given 10).
const LEAST_SEED: usize = 10;

/// Something that is said about one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It was not imported, and why.
    Bad(String),
    /// It was imported without something.
    Warning(String),
}

/// What became of the records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that were read.
    pub read: u64,
    /// People who are new here.
    pub imported: u64,
    /// People whose address has an account already.
    pub existed: u64,
    /// Records that could not be imported.
    pub bad: u64,
    /// Records that an earlier run of the same file had done.
    pub done_before: u64,
}

/// What an import works with.
#[derive(Clone)]
pub struct Importer {
    db: Db,
    clock: Clock,
    chance: Entropy,
    sealer: Option<Sealer>,
    trail: Trail,
    people: PeopleSettings,
}

/// A record, checked, as it is stored.
struct Ready {
    number: u64,
    email: EmailAddress,
    verified: bool,
    display_name: String,
    locale: String,
    metadata: String,
    created_at: Timestamp,
    password_hash: String,
    factor: Option<(Vec<u8>, i64)>,
    identities: Vec<Identity>,
    roles: Vec<String>,
    suspended: Option<String>,
    warnings: Vec<String>,
}

/// SHA-256 over a whole file: by it an interrupted import is known again.
///
/// # Errors
/// When the file cannot be read.
pub fn file_digest(mut reader: impl Read) -> std::io::Result<Digest> {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = reader.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        context.update(buffer.get(..read).unwrap_or_default());
    }
    let mut bytes = [0; 32];
    bytes.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Ok(Digest::from_bytes(bytes))
}

impl Importer {
    /// An importer; without a master key nobody's second factor can be kept. `people` says which addresses accounts may have.
    pub fn new(
        db: Db,
        clock: Clock,
        chance: Entropy,
        master: Option<&MasterKeys>,
        people: PeopleSettings,
    ) -> Self {
        let sealer = master.map(|master| Sealer::new(master, chance.clone()));
        let trail = Trail::new(clock.clone(), chance.clone());
        Self { db, clock, chance, sealer, trail, people }
    }
}

/// Imports an export. `file` names it for a later run; none for what cannot be read again. `said` hears what is to be
/// said about single records and `progress` the number of the last one that is done. Blocks: not for a thread of the
/// runtime itself.
///
/// # Errors
/// In words: the file is not such an export, or the database failed. What came before is imported.
pub fn import_users(
    importer: &Importer,
    (preset, extras): (Preset, &Extras),
    reader: impl BufRead,
    (file, dry_run): (Option<Digest>, bool),
    runtime: &Handle,
    said: &mut dyn FnMut(u64, Said),
    progress: &mut dyn FnMut(u64),
) -> Result<Tally, String> {
    let before = match file {
        Some(file) if !dry_run => runtime.block_on(importer.done_before(file)),
        _ => Ok(0),
    };
    let done = before.map_err(|e| e.to_string())?;
    let mut tally = Tally::default();
    let mut batch: Vec<Ready> = Vec::with_capacity(BATCH);
    let mut failed = None;
    let mut flush =
        |batch: &mut Vec<Ready>, tally: &mut Tally, said: &mut dyn FnMut(u64, Said)| -> db::Result<()> {
            let Some(last) = batch.last().map(|ready| ready.number) else { return Ok(()) };
            let people = Arc::new(std::mem::take(batch));
            let outcomes = runtime.block_on(importer.store(people.clone(), file, last, dry_run))?;
            for (person, outcome) in people.iter().zip(outcomes) {
                match outcome {
                    Outcome::Imported(warnings) => {
                        tally.imported += 1;
                        person
                            .warnings
                            .iter()
                            .cloned()
                            .chain(warnings)
                            .for_each(|w| said(person.number, Said::Warning(w)));
                    }
                    Outcome::Existed => tally.existed += 1,
                }
            }
            progress(last);
            Ok(())
        };
    let read = presets::read(preset, reader, extras, &mut |number, record| {
        tally.read += 1;
        if number <= done {
            tally.done_before += 1;
            return ControlFlow::Continue(());
        }
        match record.and_then(|record| importer.check(number, record)) {
            Ok(ready) => batch.push(ready),
            Err(why) => {
                tally.bad += 1;
                said(number, Said::Bad(why));
            }
        }
        if batch.len() < BATCH {
            return ControlFlow::Continue(());
        }
        match flush(&mut batch, &mut tally, said) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error.to_string());
                ControlFlow::Break(())
            }
        }
    });
    if let Some(error) = failed {
        return Err(format!("{error}; run the same command again to go on"));
    }
    // Also when the file broke off: what came before is imported.
    flush(&mut batch, &mut tally, said).map_err(|e| format!("{e}; run the same command again to go on"))?;
    read?;
    if let Some(file) = file.filter(|_| !dry_run) {
        let forget = importer.db.write_one(move |tx| tx.execute(&store::FORGET_PROGRESS, params![file]));
        runtime.block_on(forget).map_err(|e| e.to_string())?;
    }
    Ok(tally)
}

/// What became of one record.
#[derive(Debug, Clone)]
enum Outcome {
    /// The person is new, with what could not be brought along.
    Imported(Vec<String>),
    /// Their address has an account.
    Existed,
}

impl Importer {
    /// The number of the last record that an earlier run of the same file has done.
    async fn done_before(&self, file: Digest) -> db::Result<u64> {
        let done: Option<(i64,)> =
            self.db.read_one(move |tx| tx.opt(&store::PROGRESS, params![file])).await?;
        Ok(done.map_or(0, |(done,)| u64::try_from(done).unwrap_or(0)))
    }

    /// Checks everything that needs no database.
    fn check(&self, number: u64, record: Record) -> Result<Ready, String> {
        let field = |error: foundation::kernel::FieldError| format!("{}: {}", error.field, error.message);
        let email = EmailAddress::parse("email", &record.email).map_err(field)?;
        registration::admits(&self.people, &email, Way::Asked)
            .map_err(|why| format!("email: {}", why.words()))?;
        let mut warnings = record.warnings;
        let verified = record.email_verified;
        let mut lost = |what: &str| {
            warnings.push(format!(
                "{what} not imported: the address is not verified, so they may be somebody else's"
            ));
        };
        let (mut totp, mut identities) = (record.totp, record.identities);
        if !verified {
            if totp.take().is_some() {
                lost("the second factor was");
            }
            if !std::mem::take(&mut identities).is_empty() {
                lost("linked identities were");
            }
        }
        let password_hash = match record.password_hash.reveal() {
            "" => String::new(),
            text => passwords::canonical(text).unwrap_or_else(|why| {
                warnings.push(format!("without a password: {why}"));
                String::new()
            }),
        };
        Ok(Ready {
            number,
            verified,
            display_name: DisplayName::parse("display_name", &record.display_name).map_err(field)?.0,
            locale: Locale::parse("locale", &record.locale).map_err(field)?.0,
            metadata: Metadata::parse("metadata", &record.metadata).map_err(field)?.0,
            created_at: match record.created_at.as_str() {
                "" => self.clock.now(),
                text => text
                    .parse::<jiff::Timestamp>()
                    .ok()
                    .filter(|at| (0..=LATEST).contains(&at.as_microsecond()))
                    .map(|at| Timestamp::from_micros(at.as_microsecond()))
                    .ok_or_else(|| {
                        "created_at: give a time since 1970 such as 2024-03-01T09:15:00Z".to_owned()
                    })?,
            },
            password_hash,
            factor: totp
                .map(|totp| Ok::<_, String>((self.seal(&totp)?, i64::from(totp.period))))
                .transpose()?,
            identities: distinct_identities(identities)?,
            roles: record.roles.iter().map(|role| role_name(role)).collect::<Result<_, _>>()?,
            suspended: record
                .suspended
                .map(|suspension| suspension.reason.chars().filter(|c| !c.is_control()).take(500).collect()),
            email,
            warnings,
        })
    }

    fn seal(&self, totp: &Totp) -> Result<Vec<u8>, String> {
        let secret = totp.secret.reveal().trim_end_matches('=').to_ascii_uppercase();
        let seed = BASE32_NOPAD.decode(secret.as_bytes()).ok().filter(|seed| seed.len() >= LEAST_SEED);
        let shape = matches!((totp.digits, totp.period), (6 | 8, 15..=120))
            && matches!(totp.algorithm.as_str(), "SHA1" | "SHA256" | "SHA512");
        if seed.is_none() || !shape {
            return Err("totp: give secret as base32 of at least 10 bytes, digits 6 or 8, period in seconds, algorithm SHA1, SHA256 or SHA512".into());
        }
        let sealer = self.sealer.as_ref().ok_or(
            "totp: a second factor is kept under the master key; set secrets.master_key, as for the server",
        )?;
        let plain = json!({ "secret": secret, "digits": totp.digits, "period": totp.period, "algorithm": totp.algorithm });
        sealer.seal(SEALED_FOR, plain.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    async fn store(
        &self,
        people: Arc<Vec<Ready>>,
        file: Option<Digest>,
        last: u64,
        dry_run: bool,
    ) -> db::Result<Vec<Outcome>> {
        let inner = self.clone();
        if dry_run {
            let looked = self.db.read(move |tx| {
                let exists = |person: &Ready| -> db::Result<Outcome> {
                    let row: Option<(Id<UserRow>,)> = tx.opt(&store::EXISTS, params![person.email.key()])?;
                    Ok(if row.is_some() { Outcome::Existed } else { Outcome::Imported(Vec::new()) })
                };
                people.iter().map(exists).collect()
            });
            return looked.await;
        }
        let stored = self.db.write(move |tx| {
            let outcomes =
                people.iter().map(|person| inner.store_one(tx, person)).collect::<db::Result<Vec<_>>>()?;
            if let Some(file) = file {
                let done = i64::try_from(last).unwrap_or(i64::MAX);
                tx.execute(&store::SET_PROGRESS, params![file, done, inner.clock.now()])?;
            }
            Ok(outcomes)
        });
        stored.await
    }

    fn store_one(&self, tx: &mut Tx<'_>, person: &Ready) -> db::Result<Outcome> {
        let p = person;
        if tx.opt::<(Id<UserRow>,)>(&store::EXISTS, params![p.email.key()])?.is_some() {
            return Ok(Outcome::Existed);
        }
        let (user, now) = (Id::<UserRow>::new(&self.clock, &self.chance), self.clock.now());
        let key = name_key(&p.display_name);
        tx.execute(&store::PERSON, params![user, p.display_name, p.locale, p.metadata, p.created_at, key])?;
        let ours: Option<(Id<UserRow>,)> =
            tx.opt(&store::ADDRESS, params![user, p.email.as_str(), p.email.key()])?;
        if ours.is_none() {
            tx.execute(&store::NOBODY, params![user])?;
            return Ok(Outcome::Existed);
        }
        tx.execute(&store::CAME_FROM, params![user, "import", now])?;
        if p.verified {
            tx.execute(&store::VERIFIED, params![user, now])?;
            if !p.password_hash.is_empty() {
                tx.execute(&store::PASSWORD, params![user, p.password_hash, now])?;
            }
        } else {
            let nobodys = |_: &str| Digest::from_bytes(self.chance.bytes());
            let id: Id<UserRow> = Id::from_bytes(self.chance.bytes());
            tx.execute(
                &store::WAITING,
                params![user, id, nobodys("link"), nobodys("code"), p.password_hash, now],
            )?;
        }
        if let Some(scheme) = passwords::scheme(&p.password_hash) {
            tx.execute(&store::FOREIGN, params![user, scheme])?;
        }
        if let Some((sealed, period)) = &p.factor {
            // A code that was shown to the other system a moment ago is used up.
            let step = now.seconds().checked_div(*period).unwrap_or_default();
            tx.execute(&store::FACTOR, params![user, sealed, now, step])?;
        }
        let mut warnings = Vec::new();
        for identity in &p.identities {
            let linked: Option<(i64,)> =
                tx.opt(&store::IDENTITY, params![identity.provider, identity.subject, user, now])?;
            if linked.is_none() {
                warnings
                    .push(format!("their identity at {} belongs to another account here", identity.provider));
            }
        }
        for role in &p.roles {
            let id = Id::<RoleRow>::new(&self.clock, &self.chance);
            tx.execute(&store::ROLE_NAMED, params![id, role, now])?;
            if tx.opt::<(i64,)>(&store::ROLE, params![user, role, now])?.is_none() {
                warnings
                    .push(format!("the role {role} is an operator's here: `pearlgate user grant` gives it"));
            }
        }
        if let Some(reason) = &p.suspended {
            tx.execute(&store::SUSPENSION, params![user, reason, now])?;
        }
        let event = Event {
            kind: "user_imported",
            actor: String::new(),
            address: String::new(),
            details: json!({ "verified": p.verified }),
        };
        self.trail.record(tx, &Stream::of(user), &event)?;
        Ok(Outcome::Imported(warnings))
    }
}

fn distinct_identities(mut identities: Vec<Identity>) -> Result<Vec<Identity>, String> {
    identities.sort_by(|a, b| (&a.provider, &a.subject).cmp(&(&b.provider, &b.subject)));
    identities.dedup();
    let fine = |text: &str, most: usize| {
        !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control)
    };
    match identities.iter().find(|i| !fine(&i.provider, 100) || !fine(&i.subject, 500)) {
        Some(_) => Err("identities: provider and subject are one line of at most 100 and 500 bytes".into()),
        None => Ok(identities),
    }
}

fn role_name(text: &str) -> Result<String, String> {
    let fine = (1..=100).contains(&text.len()) && !text.chars().any(char::is_control);
    if fine { Ok(text.to_owned()) } else { Err("roles: a name is one line of 1 to 100 bytes".into()) }
}

/// Writes everybody as NDJSON, in the order of their ids. `progress` hears how many are written.
///
/// # Errors
/// In words: the database or the file failed, or a second factor is sealed under another master key.
pub async fn export_users(
    db: &Db,
    sealer: Option<&Sealer>,
    to: &mut (dyn Write + Send),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<u64, String> {
    let mut after: Id<UserRow> = Id::from_bytes([0; 16]);
    let mut written = 0;
    loop {
        let page = db.scan(move |tx| {
            let people: Vec<Person> = tx.all(&store::PEOPLE, params![after])?;
            people.into_iter().map(|person| with_the_rest(tx, person)).collect::<db::Result<Vec<_>>>()
        });
        let page = page.await.map_err(|e| e.to_string())?;
        let Some((last, ..)) = page.last() else { return Ok(written) };
        after = last.id;
        for (person, record, sealed) in page {
            let totp = sealed.map(|sealed| opened(sealer, &sealed)).transpose();
            let record = Record { totp: totp.map_err(|why| format!("{}: {why}", person.id))?, ..record };
            serde_json::to_writer(&mut *to, &record).map_err(|e| e.to_string())?;
            to.write_all(b"\n").map_err(|e| e.to_string())?;
            written += 1;
        }
        progress(written);
    }
}

type WithTheRest = (Person, Record, Option<Vec<u8>>);

fn with_the_rest(tx: &mut Tx<'_>, person: Person) -> db::Result<WithTheRest> {
    let sealed: Option<(Vec<u8>,)> = tx.opt(&store::FACTOR_OF, params![person.id])?;
    let identities: Vec<(String, String)> = tx.all(&store::IDENTITIES_OF, params![person.id])?;
    let roles: Vec<(String,)> = tx.all(&store::ROLES_OF, params![person.id])?;
    let suspended: Option<(String,)> = tx.opt(&store::SUSPENSION_OF, params![person.id])?;
    let record = Record {
        email_verified: person.verified,
        display_name: person.display_name.clone(),
        locale: person.locale.clone(),
        metadata: serde_json::from_str(&person.metadata).unwrap_or_default(),
        created_at: person.created_at.to_string(),
        password_hash: Secret::new(person.password_hash.clone()),
        identities: identities
            .into_iter()
            .map(|(provider, subject)| Identity { provider, subject })
            .collect(),
        roles: roles.into_iter().map(|(role,)| role).collect(),
        suspended: suspended.map(|(reason,)| Suspension { reason }),
        ..Record::new(&person.address)
    };
    Ok((person, record, sealed.map(|(sealed,)| sealed)))
}

fn opened(sealer: Option<&Sealer>, sealed: &[u8]) -> Result<Totp, String> {
    let sealer = sealer
        .ok_or("a second factor is kept under the master key; set secrets.master_key, as for the server")?;
    let plain =
        sealer.open(SEALED_FOR, sealed).map_err(|e| format!("the second factor cannot be read: {e}"))?;
    serde_json::from_slice(&plain).map_err(|_| "the second factor cannot be read".to_owned())
}

/// Seals under the current master key what rests under one of before; how many second factors.
///
/// # Errors
/// In words.
pub async fn reseal_factors(db: &Db, sealer: &Sealer) -> Result<usize, String> {
    let mut after: Id<UserRow> = Id::from_bytes([0; 16]);
    let mut resealed = 0;
    loop {
        let page = db.scan(move |tx| tx.all::<(Id<UserRow>, Vec<u8>)>(&store::FACTORS, params![after]));
        let page = page.await.map_err(|e| e.to_string())?;
        let Some((last, _)) = page.last() else { return Ok(resealed) };
        after = *last;
        for (user, sealed) in page.into_iter().filter(|(_, sealed)| sealer.is_outdated(sealed)) {
            let unread = |e| format!("the second factor of {user} cannot be read: {e}");
            let plain = sealer.open(SEALED_FOR, &sealed).map_err(unread)?;
            let anew = sealer.seal(SEALED_FOR, &plain).map_err(unread)?;
            let done = db.write(move |tx| tx.execute(&store::RESEAL_FACTOR, params![user, anew, sealed]));
            resealed += usize::try_from(done.await.map_err(|e| e.to_string())?).unwrap_or(0);
        }
    }
}
