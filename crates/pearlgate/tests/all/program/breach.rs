//! Filters of breached passwords, and what hashing costs.

use std::path::Path;

use super::child::{Outcome, pearlgate};

/// Some passwords and their SHA-1 and NTLM hashes, made with Python's hashlib.
const KNOWN: [(&str, &str, &str); 2] =
    [("seven slow rivers hum", SHA1[0], NTLM[0]), ("quiet amber harbour nine", SHA1[1], NTLM[1])];
const SHA1: [&str; 2] =
    ["BD484625F5EFF215945B38C1A1A5C02C51DE307F", "053C3CD6A7898B6C92CDB68189E28BAAF46A91E8"];
const NTLM: [&str; 2] = ["037399FA924438AD44C6FFB16DD192D0", "21B430C5379D33847C20D8722B7FAA00"];

/// An ordered list of 3,000 hashes with counts, among them the known ones.
fn list(digits: usize, known: [&str; 2]) -> String {
    let other = |n: u64| format!("{:0<digits$}", format!("{:016X}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let mut lines: Vec<String> = (1..2_999).map(other).chain(known.map(str::to_owned)).collect();
    lines.sort();
    lines.iter().map(|hash| format!("{hash}:7\r\n")).collect()
}

async fn check(filter: &Path, password: &str) -> Outcome {
    let input = filter.with_extension("input");
    std::fs::write(&input, format!("{password}\n")).unwrap();
    let call = pearlgate(&["breach", "check", "--local", "--filter", filter.to_str().unwrap()]);
    call.reading(&input).run().await
}

#[tokio::test]
async fn a_filter_is_made_of_the_public_lists_and_knows_what_is_in_them() {
    let dir = tempfile::tempdir().unwrap();
    for (digits, known, kind) in [(40, SHA1, "Sha1"), (32, NTLM, "Ntlm")] {
        let (whole, filter) =
            (dir.path().join(format!("{kind}.txt")), dir.path().join(format!("{kind}.filter")));
        let text = list(digits, known);
        std::fs::write(&whole, &text).unwrap();
        // In two parts, as a download that was cut.
        let middle = text[..text.len() / 2].rfind('\n').unwrap() + 1;
        let parts = [dir.path().join("a.txt"), dir.path().join("b.txt")];
        std::fs::write(&parts[0], &text[..middle]).unwrap();
        std::fs::write(&parts[1], &text[middle..]).unwrap();
        let build = pearlgate(&[
            "breach",
            "build",
            parts[0].to_str().unwrap(),
            parts[1].to_str().unwrap(),
            "--out",
            filter.to_str().unwrap(),
        ]);
        let built = build.run().await;
        assert!(built.went_well().starts_with("3000 passwords"), "{built:?}");
        let shown = pearlgate(&["breach", "show", filter.to_str().unwrap()]).run().await;
        assert_eq!(shown.went_well().trim(), format!("3000 passwords by their {kind}"));
        for (password, ..) in KNOWN {
            let known = check(&filter, password).await;
            assert_eq!((known.status.code(), known.out.contains("breach")), (Some(1), true), "{known:?}");
            assert!(!known.out.contains(password) && !known.err.contains(password), "the password is told");
        }
        let fine = check(&filter, "nine purple lanterns drift").await;
        assert_eq!(fine.status.code(), Some(0), "{fine:?}");
        let common = check(&filter, "iloveyou1").await;
        assert_eq!((common.status.code(), common.out.contains("most common")), (Some(1), true), "{common:?}");

        let turned = dir.path().join("turned.txt");
        std::fs::write(&turned, text.lines().rev().map(|line| format!("{line}\n")).collect::<String>())
            .unwrap();
        let out = dir.path().join("turned.filter");
        let refuse = |file: &Path| {
            pearlgate(&["breach", "build", file.to_str().unwrap(), "--out", out.to_str().unwrap()])
        };
        refuse(&turned).run().await.refused(&["ascending order", "byte"]);
        std::fs::write(&turned, format!("{}<html>\n", &text[..middle])).unwrap();
        refuse(&turned).run().await.refused(&["is the download complete", "byte"]);
        std::fs::write(&turned, "password\n").unwrap();
        refuse(&turned).run().await.refused(&["--words"]);
    }
}

#[tokio::test]
async fn a_server_with_a_filter_refuses_what_is_in_it() {
    use super::child::dev;
    let dir = tempfile::tempdir().unwrap();
    let (words, filter) = (dir.path().join("words.txt"), dir.path().join("words.filter"));
    std::fs::write(&words, "seven slow rivers hum\n").unwrap();
    let build = pearlgate(&[
        "breach",
        "build",
        "--words",
        words.to_str().unwrap(),
        "--out",
        filter.to_str().unwrap(),
    ]);
    build.run().await.went_well();
    let server = dev(&dir.path().join("data"))
        .set("passwords.breach.filter_file", filter.to_str().unwrap())
        .start()
        .await;
    let body = serde_json::json!({ "email": "ada@example.com", "password": "seven slow rivers hum" });
    let refused = server.api.post("/v1/auth/register", body).await;
    assert_eq!(
        (refused.refusal().as_str(), refused.fields()),
        ("422 validation_failed", vec!["password:password_breached".to_owned()])
    );
    assert_eq!(server.api.register("ada@example.com").await.status, 202);
    server.stop().await;
    let none = dev(&dir.path().join("none")).set("passwords.breach.filter_file", words.to_str().unwrap());
    none.run().await.refused(&["passwords.breach.filter_file", "pearlgate breach build"]);
}

#[tokio::test]
async fn calibrating_proposes_settings_that_the_server_takes() {
    let dir = tempfile::tempdir().unwrap();
    let proposed = pearlgate(&["hash", "calibrate", "--target", "40ms", "--memory", "32"]).run().await;
    let file = dir.path().join("hashing.toml");
    std::fs::write(&file, proposed.went_well()).unwrap();
    let shown = pearlgate(&["config", "show", "--config", file.to_str().unwrap()])
        .env("PEARLGATE__HASHING__MEMORY_KIB", "64");
    shown.run().await.went_well();
    assert!(proposed.err.contains("m=19456 KiB, t=2, p=1: "), "what was measured is told: {proposed:?}");
    pearlgate(&["hash", "calibrate", "--target", "soon"]).run().await.refused(&["--target", "250ms"]);
}
