//! Reads the source: arrows point down, statements stand in stores, the map and the description agree.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pearlgate::router::{Guard, doors};
use reqwest::Method;

use crate::support::{Engine, TestApp, called};

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn sources(under: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(under).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// The modules of a crate that a text uses: `crate::jobs::…` in code, not in comments.
fn uses(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for piece in code.split("crate::").skip(1) {
        if let Some(names) = piece.strip_prefix('{') {
            let names = names.split('}').next().unwrap();
            found.extend(names.split(',').map(|name| name.trim().split("::").next().unwrap().to_owned()));
        } else {
            found
                .insert(piece.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap().to_owned());
        }
    }
    found
}

fn room(path: &Path, root: &Path) -> String {
    let first = path.strip_prefix(root).unwrap().components().next().unwrap();
    first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn in_the_foundation_arrows_point_down() {
    let root = crates().join("foundation/src");
    let order =
        ["kernel", "db", "jobs", "audit", "outbound", "limits", "mail", "http", "telemetry", "config"];
    let below = |room: &str| match room {
        "kernel" | "telemetry" | "config" => vec![],
        "db" => vec!["kernel"],
        "jobs" | "audit" => vec!["kernel", "db"],
        "outbound" => vec!["kernel"],
        "limits" => vec!["kernel", "db", "outbound"],
        "mail" => vec!["kernel", "db", "jobs", "outbound"],
        "http" => vec!["kernel", "db"],
        other => panic!("a room that nobody drew: {other}"),
    };
    for (path, text) in sources(&root) {
        let here = room(&path, &root);
        if here == "lib" {
            continue;
        }
        for there in uses(&text).into_iter().filter(|name| order.contains(&name.as_str()) && *name != here) {
            assert!(below(&here).contains(&there.as_str()), "{} uses {there}", path.display());
        }
        assert!(!text.to_lowercase().contains("pearlgate::"), "{} knows of accounts", path.display());
    }
}

/// Each way to another machine, and the files that may take it: clients are made behind the one door, or for a part that has a
/// guard of its own (the database; the doctor, who looks at what there is).
#[test]
fn there_is_one_door_to_other_peoples_machines() {
    let ways: [(&str, &[&str]); 8] = [
        // The drill asks the server that it drills, and nobody else.
        ("reqwest::Client", &["foundation/src/outbound/http.rs", "pearlgate/src/cli/drill/client.rs"]),
        ("reqwest::get", &[]),
        ("reqwest::blocking", &[]),
        ("TcpStream::connect", &["pearlgate/src/cli/doctor.rs"]),
        ("UdpSocket", &[]),
        ("AsyncSmtpTransport", &["foundation/src/mail/smtp.rs"]),
        ("Client::open", &["foundation/src/limits/redis.rs"]),
        ("hyper_util::client", &[]),
    ];
    let roots = [crates().join("foundation/src"), crates().join("pearlgate/src")];
    let mut taken = BTreeSet::new();
    for (path, text) in roots.iter().flat_map(|root| sources(root)) {
        let path = path.strip_prefix(crates()).unwrap().to_str().unwrap().to_owned();
        // What a file's own tests do is their business.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for (way, allowed) in ways {
            if code.lines().any(|line| line.contains(way) && !line.trim_start().starts_with("//")) {
                assert!(
                    allowed.contains(&path.as_str()),
                    "{path} goes by {way}: call through foundation::outbound"
                );
                taken.insert(way);
            }
        }
    }
    let expected: BTreeSet<&str> =
        ways.iter().filter(|(_, allowed)| !allowed.is_empty()).map(|(way, _)| *way).collect();
    assert_eq!(taken, expected, "a way that nobody takes any more: this list looks at nothing");
}

#[test]
fn slices_meet_only_at_their_doors() {
    let root = crates().join("pearlgate/src");
    let slices = [
        "access",
        "accounts",
        "admin",
        "email_change",
        "federation",
        "invitations",
        "lockout",
        "magic_links",
        "mailed",
        "mailing",
        "mfa",
        "passkeys",
        "passwords",
        "recovery",
        "registration",
        "sessions",
        "sign_in",
        "transfer",
        "webhooks",
    ];
    for (path, text) in sources(&root) {
        let (here, file) = (room(&path, &root), path.file_name().unwrap().to_str().unwrap().to_owned());
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for slice in slices.into_iter().filter(|slice| *slice != here) {
                for inside in ["flow", "store", "model"] {
                    let forbidden = format!("{slice}::{inside}::");
                    assert!(!line.contains(&forbidden), "{}: {line}", path.display());
                }
            }
        }
        if file == "model.rs" {
            let used = uses(&text);
            let known = ["accounts", "passwords", "errors", "sessions", "settings", "lockout", "magic_links"];
            assert!(used.iter().all(|name| known.contains(&name.as_str())), "{}: {used:?}", path.display());
            assert!(!text.contains(".await"), "{} waits for something", path.display());
        }
        if !matches!(file.as_str(), "router.rs" | "lib.rs" | "run.rs") && slices.contains(&here.as_str()) {
            let used = uses(&text);
            assert!(
                !used.contains("server") && !used.contains("cli") && !used.contains("dev"),
                "{}: {used:?}",
                path.display()
            );
        }
    }
}

#[test]
fn statements_stand_in_stores_and_every_store_is_listed() {
    let listed: BTreeSet<&str> = pearlgate::statements().iter().map(|s| s.name).collect();
    let mut found = 0;
    for (path, text) in
        sources(&crates().join("pearlgate/src")).into_iter().chain(sources(&crates().join("foundation/src")))
    {
        let file = path.file_name().unwrap().to_str().unwrap();
        let block =
            text.split("\nstatements! {").nth(1).map(|rest| rest.split("\n}").next().unwrap().to_owned());
        if let Some(block) = block {
            assert!(
                file == "store.rs" || path.starts_with(crates().join("foundation")),
                "{}",
                path.display()
            );
            for line in block.lines().filter(|line| {
                line.starts_with("    ") && line.contains(" = \"") && !line.starts_with("     ")
            }) {
                let name = line.trim().split(' ').next().unwrap();
                assert!(
                    listed.contains(name),
                    "{}: {name} is not in pearlgate::statements()",
                    path.display()
                );
                found += 1;
            }
        }
        if path.starts_with(crates().join("pearlgate")) && file != "store.rs" {
            for word in ["SELECT ", "INSERT INTO", "UPDATE ", "DELETE FROM"] {
                assert!(!text.contains(&format!("\"{word}")), "{}: SQL outside a store", path.display());
            }
        }
    }
    assert_eq!(found, pearlgate::statements().len());
}

#[test]
fn every_code_that_is_used_is_explained() {
    for (path, text) in
        sources(&crates().join("pearlgate/src")).into_iter().chain(sources(&crates().join("foundation/src")))
    {
        let text = text.split("#[cfg(test)]").next().unwrap();
        for start in ["errors::problem(\"", "problem(\"", "Problem::new("] {
            for piece in text.split(start).skip(1) {
                let piece =
                    piece.trim_start_matches(|c: char| c.is_numeric() || c == ',' || c == ' ' || c == '"');
                let code = piece.split('"').next().unwrap();
                if code.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !code.is_empty() {
                    assert!(pearlgate::errors::find(code).is_some(), "{}: {code}", path.display());
                }
            }
        }
    }
}

#[test]
fn the_guide_lists_every_error_code() {
    let guide = std::fs::read_to_string(crates().parent().unwrap().join("docs/guide/errors.md")).unwrap();
    for entry in pearlgate::errors::all() {
        assert!(
            guide.contains(&format!("## `{}`", entry.code)) && guide.contains(&entry.cause),
            "{}: make it again with `cargo run -p pearlgate --example error_guide > docs/guide/errors.md`",
            entry.code
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_map_the_description_and_the_contract_agree_and_every_call_answers_as_described() {
    let app = TestApp::start(Engine::Sqlite).await;
    let document = pearlgate::openapi::document(&app.url);
    let mut described = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            described.insert((method.to_uppercase(), path.clone(), operation["security"].is_array()));
        }
    }
    let pages = [
        "/",
        "/docs",
        "/verify-email",
        "/accept-invitation",
        "/keep-account",
        "/reset-password",
        "/magic-link",
        "/email-change",
        "/mfa",
        "/not-me",
        "/unlock",
        "/setup",
        "/errors",
        "/errors/{code}",
        "/metrics",
        "/health/dependencies",
    ];
    let mounted: BTreeSet<_> = doors(&app.app)
        .routes
        .into_iter()
        .filter(|route| !pages.contains(&route.path) && route.guard != Guard::Dev)
        .map(|route| {
            (
                route.method.to_string(),
                route.path.to_owned(),
                matches!(route.guard, Guard::SignedIn | Guard::Operator(_) | Guard::Caller),
            )
        })
        .collect();
    assert_eq!(described, mounted);
    for (method, path) in [
        ("POST", "/v1/auth/register"),
        ("POST", "/v1/auth/verify-email"),
        ("DELETE", "/v1/me"),
        ("GET", "/v1/me/export"),
        ("POST", "/v1/admin/users"),
        ("DELETE", "/v1/admin/users/{id}"),
        ("POST", "/v1/admin/users/{id}/impersonate"),
        ("GET", "/v1/admin/invitations"),
        ("POST", "/v1/admin/invitations"),
        ("DELETE", "/v1/admin/invitations/{id}"),
        ("POST", "/v1/auth/resend-verification"),
        ("POST", "/v1/auth/login"),
        ("POST", "/v1/auth/magic-link"),
        ("POST", "/v1/auth/magic-link/consume"),
        ("POST", "/v1/auth/forgot-password"),
        ("POST", "/v1/auth/reset-password"),
        ("POST", "/v1/auth/unlock"),
        ("PUT", "/v1/me/password"),
        ("POST", "/v1/me/email"),
        ("POST", "/v1/me/email/confirm"),
        ("POST", "/v1/auth/refresh"),
        ("POST", "/v1/auth/logout"),
        ("GET", "/v1/me"),
        ("PATCH", "/v1/me"),
        ("GET", "/v1/me/activity"),
        ("GET", "/.well-known/jwks.json"),
        ("GET", "/.well-known/openid-configuration"),
        ("GET", "/openapi.json"),
        ("GET", "/health/live"),
        ("GET", "/health/ready"),
    ] {
        assert!(
            described.iter().any(|(m, p, _)| m == method && p == path),
            "{method} {path} of api.md is not described"
        );
    }
    assert_eq!(document["openapi"], "3.1.0");
    for (method, path, _) in &described {
        let method: Method = method.parse().unwrap();
        let bare = app.send(app.request(method.clone(), path)).await;
        let empty = app.send(app.request(method.clone(), path).json(&serde_json::json!({}))).await;
        assert!(bare.status < 500 && empty.status < 500, "{method} {path}");
        assert!(called().iter().any(|call| call.starts_with(&format!("{method} {path} "))));
    }
    app.finish().await;
}

#[test]
fn there_is_one_gate() {
    // Every way in ends at the gate of second factors: nobody else begins a session.
    let root = crates().join("pearlgate/src");
    let begins: Vec<PathBuf> = sources(&root)
        .into_iter()
        .filter(|(_, text)| text.contains("sessions::begin(") || text.contains("begin(tx, app, with)"))
        .map(|(path, _)| path.strip_prefix(&root).unwrap().to_owned())
        .collect();
    assert_eq!(begins, [Path::new("mfa/gate.rs")]);
}
