use std::io::{BufReader, Read};

use super::*;

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/fixtures/import/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn extras() -> Extras {
    let signer_key =
        "DA2I0/fzbzFmsaEG0H5WPPl9Wie3EJZa1YnTldCkopfePfZPfYSn06MLebx3bzg17jAjsEd63ecUhV4LvQjgNg==";
    let signer_key = Secret::new(signer_key.to_owned());
    let firebase = FirebaseHash { signer_key, salt_separator: "Bw==".to_owned(), rounds: 8, mem_cost: 11 };
    let now = Timestamp::from_micros(1_795_478_400_000_000);
    Extras { firebase: Some(firebase), assume_verified: false, now }
}

fn all(preset: Preset, text: impl AsRef<[u8]>, extras: &Extras) -> Vec<(u64, Result<Record, String>)> {
    let mut came = Vec::new();
    read(preset, text.as_ref(), extras, &mut |number, record| {
        came.push((number, record));
        ControlFlow::Continue(())
    })
    .unwrap();
    came
}

/// A record as one line that a person can compare: hashes without salt and key.
fn tell((number, record): &(u64, Result<Record, String>)) -> String {
    let record = match record {
        Ok(record) => record,
        Err(why) => return format!("{number} - {why}"),
    };
    let hash = record.password_hash.reveal();
    let mut told = format!("{number} {}", record.email);
    let mut add = |part: &str| told.extend([" ", part]);
    add(if record.email_verified { "proven" } else { "unproven" });
    if !hash.is_empty() {
        let kind = if hash.starts_with("$2") || hash.starts_with("bcrypt") { 22 + 31 } else { 0 };
        let short = if kind > 0 { &hash[..hash.len() - kind] } else { hash.rsplitn(3, '$').last().unwrap() };
        add(&short.split(",ss=").next().unwrap().replace(' ', ""));
    }
    for part in [&record.display_name, &record.locale, record.created_at.get(..23).unwrap_or_default()] {
        if !part.is_empty() {
            add(&format!("«{part}»"));
        }
    }
    if let Some(t) = &record.totp {
        add(&format!("totp={},{},{},{}", t.secret.reveal(), t.digits, t.period, t.algorithm));
    }
    record.identities.iter().for_each(|i| add(&format!("{}:{}", i.provider, i.subject)));
    record.roles.iter().for_each(|role| add(&format!("@{role}")));
    record.suspended.iter().for_each(|s| add(&format!("suspended={}", s.reason)));
    record.warnings.iter().for_each(|words| add(&format!("!{words}")));
    told
}

fn told(preset: Preset, text: impl AsRef<[u8]>) -> Vec<String> {
    all(preset, text, &extras()).iter().map(tell).collect()
}

const SUBJECT: &str = "google:109876543210987654321";

#[test]
fn keycloak() {
    assert_eq!(
        told(Preset::Keycloak, fixture("keycloak-realm.json")),
        [
            "1 ada@example.com proven $argon2id$v=19$m=1024,t=5,p=1 «Ada Lovelace» «de» «2024-03-01T09:15:00.001» @editor",
            "2 ben@example.org unproven $pbkdf2-sha256$i=10000,l=32 «Ben Unverified» «2024-03-01T09:15:00.002»",
            "3 cleo@example.com proven $pbkdf2-sha512$i=10000,l=64 «Cleo Disabled» «2024-03-01T09:15:00.003» suspended=disabled in Keycloak",
            "4 eve@example.com proven $argon2id$v=19$m=1024,t=5,p=1 «Eve Factor» «2024-03-01T09:15:00.004» totp=LB5FCODCKRXFMNDSJRZTAYKLMRLXSN3F,6,30,SHA1",
            &format!("5 dan@example.org proven «Dan Social» «2024-03-01T09:15:00.005» {SUBJECT}"),
            "6 - is the service account of a client",
        ]
    );
    let ada = all(Preset::Keycloak, fixture("keycloak-realm.json"), &extras()).remove(0).1.unwrap();
    assert_eq!(ada.metadata["imported"]["attributes"]["department"][0], "engines");
    let realms = format!("[{0},{0}]", String::from_utf8(fixture("keycloak-realm.json")).unwrap());
    assert_eq!(told(Preset::Keycloak, realms).len(), 12, "an export of every realm is a list of them");
}

#[test]
fn auth0() {
    assert_eq!(
        told(Preset::Auth0, fixture("auth0.ndjson")),
        [
            "1 ada@example.com proven $2b$05$ «Ada Lovelace» «2024-03-01T09:15:00.123» @editor",
            "2 ben@example.org unproven $2b$05$",
            "3 cleo@example.com proven $2b$05$ suspended=blocked in Auth0",
            "4 eve@example.com proven $2b$05$ totp=JBSWY3DPEHPK3PXP,6,30,SHA1",
            &format!("5 dan@example.org proven «Dan Social» «2024-03-01T09:15:00.000» {SUBJECT}"),
        ]
    );
    let cleo = all(Preset::Auth0, fixture("auth0.ndjson"), &extras()).remove(2).1.unwrap();
    assert_eq!(cleo.metadata["imported"]["id"], "auth0|euclid");
    let list = r#"[
        {"email": "a@example.com", "password_hash": "$2b$10$a"},
        {"email": "b@example.com", "custom_password_hash": {"algorithm": "pbkdf2",
            "hash": {"value": "$pbkdf2-sha1$i=9,l=3$c2FsdA$a2V5"}}},
        {"email": "c@example.com", "custom_password_hash": {"algorithm": "scrypt", "keylen": 3, "cost": 1024,
            "hash": {"value": "6b6579", "encoding": "hex"}, "salt": {"value": "salt", "encoding": "utf8"}}},
        {"email": "d@example.com", "custom_password_hash": {"algorithm": "md5", "hash": {"value": "00"}},
            "mfa_factors": [{"phone": {"value": "+15551112233"}}]},
        {"email": "e@example.com", "user_id": "samlp|acme|eve"}]"#;
    let came = all(Preset::Auth0, list, &extras());
    let hash = |at: usize| came[at].1.as_ref().unwrap().password_hash.reveal();
    assert_eq!((hash(1), hash(2)), ("$pbkdf2-sha1$i=9,l=3$c2FsdA$a2V5", "$scrypt$ln=10,r=8,p=1$c2FsdA$a2V5"));
    assert_eq!(
        came[3..].iter().map(tell).collect::<Vec<_>>(),
        [
            "4 d@example.com unproven !password not imported: it was hashed with md5 \
         !second factor not imported: it is of the kind phone",
            "5 e@example.com unproven !identity not imported: samlp without identities",
        ]
    );
}

#[test]
fn firebase() {
    assert_eq!(
        told(Preset::Firebase, fixture("firebase.json")),
        [
            "1 ada@example.com proven $fbscrypt$v=1,n=11,r=8,p=1 «Ada Lovelace» «2024-03-01T09:15:00.001»",
            "2 ben@example.org unproven $fbscrypt$v=1,n=11,r=8,p=1 «2024-03-01T09:15:00.002»",
            "3 cleo@example.com proven $fbscrypt$v=1,n=11,r=8,p=1 «2024-03-01T09:15:00.003» suspended=disabled in Firebase",
            "4 eve@example.com proven $fbscrypt$v=1,n=11,r=8,p=1 «2024-03-01T09:15:00.004» !second factor not imported: the export does not hold its secret",
            &format!("5 dan@example.org proven «Dan Social» «2024-03-01T09:15:00.005» {SUBJECT}"),
        ]
    );
    let without = all(Preset::Firebase, fixture("firebase.json"), &Extras::default());
    assert!(tell(&without[0]).contains("!password not imported: give --firebase-signer-key-file"));
    let odd = r#"{"users":[{"email":"a@example.com","passwordHash":"-_-_","salt":"_w","createdAt":"1"}]}"#;
    let odd = all(Preset::Firebase, odd, &extras()).remove(0).1.unwrap();
    assert!(odd.password_hash.reveal().ends_with("$/w==$+/+/"), "{}", odd.password_hash.reveal());
}

#[test]
fn supabase() {
    let people = [
        "1 ada@example.com proven $2a$04$ «Ada Lovelace» «2024-03-01T09:15:00.123» @editor",
        "2 ben@example.org unproven $2a$04$ «2024-03-01T09:15:00.123»",
        "3 cleo@example.com proven $2a$04$ «2024-03-01T09:15:00.123» suspended=banned in Supabase !was suspended until 2124-02-06T09:15:00.000000Z; is suspended without an end",
        "4 eve@example.com proven $2a$04$ «2024-03-01T09:15:00.123» totp=KVKFKRCPNZQUYMLXOVYDSQKJKZDTSRLD,6,30,SHA1",
        &format!("5 dan@example.org proven «Dan Social» «2024-03-01T09:15:00.123» {SUBJECT}"),
        "6 - was deleted at 2024-04-01T00:00:00+00:00",
    ];
    let lines = String::from_utf8(fixture("supabase.ndjson")).unwrap();
    assert_eq!(told(Preset::Supabase, &lines), people);
    assert_eq!(told(Preset::Supabase, format!("[{}]", lines.trim().replace('\n', ","))), people);
    let over = lines.replace("2124-02-06T09:15:00+00:00", "2024-03-02 09:15:00+00");
    assert!(!told(Preset::Supabase, over)[2].contains("suspended"), "a suspension that is over");
}

#[test]
fn better_auth() {
    let people = [
        "1 ada@example.com proven $scrypt$ln=14,r=16,p=1 «Ada Lovelace» «2024-03-01T09:15:00.000» @admin @editor",
        "2 ben@example.org unproven $scrypt$ln=14,r=16,p=1 «Ben Unverified» «2024-03-01T09:15:00.000» @user",
        "3 cleo@example.com proven $scrypt$ln=14,r=16,p=1 «Cleo Banned» «2024-03-01T09:15:00.000» @user suspended=sent spam",
        "4 eve@example.com proven $scrypt$ln=14,r=16,p=1 «Eve Factor» «2024-03-01T09:15:00.000» @user !second factor not imported: better-auth encrypts its secret",
        &format!("5 dan@example.org proven «Dan Social» «2024-03-01T09:15:00.000» {SUBJECT} @user"),
    ];
    let tables = fixture("better-auth.json");
    assert_eq!(told(Preset::BetterAuth, &tables), people);
    let tables: Value = serde_json::from_slice(&tables).unwrap();
    assert_eq!(told(Preset::BetterAuth, tables.to_string()), people, "tables on one line");
    let mut lines = String::new();
    for user in tables["user"].as_array().unwrap() {
        let own = |account: &&Value| account["userId"] == user["id"];
        let accounts: Vec<&Value> = tables["account"].as_array().unwrap().iter().filter(own).collect();
        lines += &format!("{}\n", serde_json::json!({"user": user, "accounts": accounts}));
    }
    assert_eq!(
        told(Preset::BetterAuth, format!("{{oops\n{lines}"))[1..].len(),
        5,
        "a bad first line is one line"
    );
    assert_eq!(told(Preset::BetterAuth, lines), people);
}

#[test]
fn django() {
    assert_eq!(
        told(Preset::Django, fixture("django.json")),
        [
            "2 ada@example.com proven pbkdf2_sha256$10000 «Ada Lovelace» «2024-03-01T09:15:00.123» @editor @staff",
            "3 ben@example.org unproven argon2$argon2id$v=19$m=1024,t=1,p=1 «Ben Unverified» «2024-03-01T09:15:00.123»",
            "4 cleo@example.com proven bcrypt_sha256$$2b$05$ «Cleo Inactive» «2024-03-01T09:15:00.123» suspended=inactive in Django",
            "5 eve@example.com proven scrypt$1024$FZ1umuSYvL0LyhmIjYabjY$8 «Eve Factor» «2024-03-01T09:15:00.123» totp=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ,6,30,SHA1",
            "6 dan@example.org unproven «Dan Nopassword» «2024-03-01T09:15:00.123»",
        ]
    );
    let assumed = all(Preset::Django, fixture("django.json"), &Extras { assume_verified: true, ..extras() });
    assert!(assumed.iter().all(|(_, record)| record.as_ref().unwrap().email_verified));
    let natural = r#"[{"model": "otp_totp.totpdevice", "pk": 1, "fields": {"user": ["ada"], "key": "3132", "step": 30,
            "digits": 8, "confirmed": true}},
        {"model": "people.person", "fields": {"username": "ada", "email": "a@example.com", "last_login": "x",
            "password": "bcrypt$$2b$05$x", "groups": [["editor"]]}}]"#;
    let ada = all(Preset::Django, natural, &extras()).remove(0).1.unwrap();
    assert_eq!((ada.password_hash.reveal(), &ada.roles[..]), ("bcrypt$$2b$05$x", &["editor".to_owned()][..]));
    assert_eq!(ada.totp.unwrap().digits, 8);
}

#[test]
fn our_own_lines_come_out_as_they_went_in() {
    let lines = String::from_utf8(fixture("pearlgate.ndjson")).unwrap();
    let came = all(Preset::Pearlgate, &lines, &extras());
    let again: String =
        came.iter().map(|(_, r)| serde_json::to_string(r.as_ref().unwrap()).unwrap() + "\n").collect();
    assert_eq!(again, lines);
    let shown = format!("{came:?}");
    assert!(!shown.contains("argon2") && !shown.contains("JBSWY3DP"), "secrets do not print themselves");
}

#[test]
fn a_bad_row_costs_itself_and_tells_no_secret() {
    let long = "x".repeat(3 << 20);
    let lines = format!(
        "\u{feff}\n{{\"email\":\"a@example.com\"}}\r\n\n{{\"email\":\"{long}\"}}\n{{\"email\"\nnull\n\
         {{\"email\":\"b@example.com\",\"pasword_hash\":\"hush\"}}\n{{\"email\":\"c@example.com\",\"totp\":\"hush\"}}\n\
         {{\"email\":\"d@example.com\",\"locale\":null}}\n{{}}\n{{\"email\":\"e@example.com\"}}"
    );
    let came = told(Preset::Pearlgate, lines);
    assert_eq!(
        came[..5],
        [
            "2 a@example.com unproven",
            "4 - longer than 1 MiB",
            "5 - this is not JSON: EOF while parsing an object, at its character 0",
            "6 - not an object",
            "7 - unknown field `pasword_hash`, expected one of `email`, `email_verified`, `display_name`, `locale`, \
         `metadata`, `created_at`, `password_hash`, `totp`, `identities`, `roles`, `suspended`",
        ]
    );
    assert_eq!(
        came[5..],
        [
            "8 - `totp` is not of the right type",
            "9 - `locale` is not of the right type",
            "10 - missing field `email`",
            "11 e@example.com unproven",
        ]
    );
    let list = r#"{"users":[{"email":7,"passwordHash":"hush"},"hush",{"email":"\ud83d"},{"email":""},{"email":"a@example.com"}]}"#;
    for preset in [Preset::Keycloak, Preset::Firebase] {
        assert_eq!(
            told(preset, list),
            [
                "1 - `email` is not of the right type",
                "2 - not an object",
                "3 - this is not JSON: unexpected end of hex escape, at its character 17",
                "4 - has no e-mail address",
                "5 a@example.com unproven",
            ]
        );
    }
}

#[test]
fn what_is_no_export_is_refused() {
    let refused = |preset, text: &str| {
        read(preset, text.as_bytes(), &extras(), &mut |_, _| ControlFlow::Continue(())).unwrap_err()
    };
    assert!(refused(Preset::Keycloak, r#"{"realm":"shop"}"#).contains("no list \"users\""));
    assert!(refused(Preset::Auth0, "email,name").contains("neither"));
    assert!(refused(Preset::Supabase, r#"[{"email":"a@example.com"},"#).contains("not JSON"));
    assert!("okta".parse::<Preset>().unwrap_err().contains("better-auth"));
}

/// A list that is made while it is read.
struct Endless {
    row: String,
    left: u32,
    buffer: Vec<u8>,
}

impl Read for Endless {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        if self.buffer.is_empty() && self.left > 0 {
            self.left -= 1;
            self.buffer = format!("{}{}", self.row, if self.left == 0 { "]}" } else { "," }).into_bytes();
        }
        let read = self.buffer.len().min(to.len());
        to[..read].copy_from_slice(&self.buffer[..read]);
        self.buffer.drain(..read);
        Ok(read)
    }
}

#[test]
fn a_long_list_streams_until_it_is_enough() {
    let row = r#"{"localId":"x","email":"a@example.com","createdAt":"1709284500000"}"#.to_owned();
    let endless =
        |left| BufReader::new(br#"{"users":["#.chain(Endless { row: row.clone(), left, buffer: Vec::new() }));
    let mut last = 0;
    read(Preset::Firebase, endless(100_000), &Extras::default(), &mut |number, record| {
        last = number;
        assert!(record.is_ok());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(last, 100_000);
    read(Preset::Firebase, endless(u32::MAX), &Extras::default(), &mut |number, _| {
        last = number;
        if number == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(last, 3, "it stops when it is told to");
}
