//! What the commands say and do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use data_encoding::BASE64;

use super::child::{PUBLIC, dev, pearlgate, serve};

#[tokio::test]
async fn help_teaches_every_command() {
    let help = pearlgate(&["--help"]).run().await;
    let taught = [
        "serve",
        "migrate",
        "doctor",
        "keys",
        "config",
        "serve --dev",
        "keys generate > master.key",
        "PEARLGATE__SECRETS__MASTER_KEY_FILE",
        "PEARLGATE__SERVER__PUBLIC_URL",
        "config show --default",
    ];
    for word in taught {
        assert!(help.went_well().contains(word), "{word:?} is not in the help: {}", help.out);
    }
    for (command, options) in [
        (vec!["serve"], vec!["--dev", "--listen <ADDR:PORT>", "--data <DIR>", "--config <FILE>", "port 0"]),
        (vec!["migrate"], vec!["--check", "--data <DIR>", "--config <FILE>"]),
        (vec!["doctor"], vec!["--data <DIR>", "--config <FILE>"]),
        (vec!["keys"], vec!["generate", "list"]),
        (vec!["breach", "build"], vec!["--out <FILE>", "--words", "goes on where it was"]),
        (vec!["breach", "check"], vec!["--filter <FILE>", "--local"]),
        (vec!["hash", "calibrate"], vec!["--target <TIME>", "--memory <MIB>"]),
        (
            vec!["import", "users"],
            vec!["--from <SYSTEM>", "--dry-run", "--assume-verified", "--firebase-signer-key-file <FILE>"],
        ),
        (vec!["export", "users"], vec!["second factors", "readable for you alone"]),
        (vec!["config", "show"], vec!["--default", "--data <DIR>", "--config <FILE>"]),
        (vec!["audit", "verify"], vec!["--against <FILE>", "--json", "exit 0"]),
        (
            vec!["audit", "export"],
            vec!["--since <WHEN>", "--until <WHEN>", "--of <WHO>", "--by <WHO>", "--kind <KIND>"],
        ),
        (vec!["admin", "create"], vec!["--name <TEXT>", "asks for their password"]),
        (vec!["roles", "apply"], vec!["--dry-run", "--prune", "--json"]),
        (vec!["roles", "check"], vec!["--on <RESOURCE>", "--json"]),
        (vec!["job"], vec!["list", "show", "retry", "remove", "is not shown"]),
        (vec!["job", "list"], vec!["--state <STATE>", "waiting, running, dead", "--limit <N>", "--json"]),
        (vec!["session", "list"], vec!["<WHO>", "--json"]),
        (vec!["session", "end"], vec!["<WHO>", "[SES_ID]", "without it every one"]),
        (vec!["mail", "list"], vec!["--to <ADDRESS>", "--limit <N>", "--json"]),
        (vec!["mail", "suppressions"], vec!["--limit <N>", "--json"]),
        (vec!["webhook", "list"], vec!["--json"]),
        (vec!["webhook", "deliveries"], vec!["--limit <N>", "--json"]),
        (vec!["provider", "list"], vec!["--json"]),
        (vec!["completions"], vec!["bash", "zsh", "fish", "powershell", "elvish"]),
    ] {
        let help = pearlgate(&[command.as_slice(), &["--help"]].concat()).run().await;
        for option in options {
            assert!(
                help.went_well().contains(option),
                "{option:?} is not in the help of {command:?}: {}",
                help.out
            );
        }
    }
    assert!(pearlgate(&["--version"]).run().await.went_well().starts_with("pearlgate 0."));
    for nonsense in [vec![], vec!["sevre"], vec!["serve", "--port", "80"]] {
        let refused = pearlgate(&nonsense).run().await;
        refused.refused(&["Usage"]);
        assert_eq!(refused.status.code(), Some(2));
    }
}

#[tokio::test]
async fn a_generated_key_is_one_that_serve_accepts() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) =
        (pearlgate(&["keys", "generate"]).run().await, pearlgate(&["keys", "generate"]).run().await);
    assert_ne!(first.went_well(), second.went_well());
    for key in [&first, &second] {
        assert_eq!(BASE64.decode(key.out.trim_end().as_bytes()).unwrap().len(), 32);
        assert_eq!(key.out.lines().count(), 1);
    }
    // As `pearlgate keys generate > master.key` leaves it.
    let file = dir.path().join("master.key");
    fs::write(&file, &first.out).unwrap();
    let data = dir.path().join("data");
    let with = |file: &std::path::Path| {
        let call = pearlgate(&["serve", "--listen", "127.0.0.1:0", "--data", data.to_str().unwrap()]);
        call.set("server.public_url", PUBLIC).set("secrets.master_key_file", file.to_str().unwrap())
    };
    let server = with(&file).start().await;
    assert_eq!(server.api.get("/health/ready").await.status, 200);
    let keys = server.api.get("/.well-known/jwks.json").await;
    server.stop().await;
    let list = pearlgate(&["keys", "list", "--data", data.to_str().unwrap()]).run().await;
    assert!(list.went_well().starts_with(&keys.str("/keys/0/kid")) && list.out.contains("ES256"), "{list:?}");
    assert_eq!(list.out.lines().count(), 1);

    let server = with(&file).start().await;
    assert_eq!(
        server.api.get("/.well-known/jwks.json").await.text,
        keys.text,
        "the key is the same after a restart"
    );
    server.stop().await;
    fs::write(&file, &second.out).unwrap();
    with(&file).run().await.refused(&["secrets.master_key", "the key that this database was made with"]);
}

#[tokio::test]
async fn the_shown_default_is_a_file_that_serves() {
    let dir = tempfile::tempdir().unwrap();
    let shown = pearlgate(&["config", "show", "--default"]).run().await;
    let file = dir.path().join("pearlgate.toml");
    fs::write(&file, shown.went_well()).unwrap();
    let server = dev(&dir.path().join("data")).arg("--config").arg(file.to_str().unwrap()).start().await;
    assert_eq!(server.api.get("/health/ready").await.status, 200);
    server.stop().await;
    let in_force =
        pearlgate(&["config", "show", "--config", file.to_str().unwrap()]).set("hashing.memory_kib", "19456");
    let in_force: toml::Table =
        in_force.set("hashing.iterations", "2").run().await.went_well().parse().unwrap();
    assert_eq!(in_force, shown.out.parse::<toml::Table>().unwrap());
    for key in in_force.keys() {
        // What has sections of any name has a template for them.
        let stands = [format!("\n[{key}]\n"), format!("\n[{key}.\"*\"]\n")];
        assert!(stands.iter().any(|header| shown.out.contains(header)), "{key}");
    }
    assert!(shown.out.lines().filter(|line| line.starts_with("# ")).count() > 20, "it is commented");
}

#[tokio::test]
async fn shown_settings_hide_what_is_secret() {
    let key = BASE64.encode(&[9; 32]);
    let shown = pearlgate(&["config", "show", "--data", "/srv/somewhere"])
        .set("secrets.master_key", &key)
        .set("mail.smtp.username", "postman")
        .set("mail.smtp.password", "hunter2")
        .set("database.url", "postgres://ada:lovelace@db.example.com/pearlgate")
        .set("mail.smtp.port", "587")
        .run()
        .await;
    for secret in [key.as_str(), "hunter2", "lovelace"] {
        assert!(!shown.went_well().contains(secret), "{secret} is shown");
    }
    let table: toml::Table = shown.out.parse().unwrap();
    assert_eq!(table["secrets"]["master_key"].as_str(), Some("(hidden)"));
    assert_eq!(table["mail"]["smtp"]["password"].as_str(), Some("(hidden)"));
    assert_eq!(table["database"]["url"].as_str(), Some("(hidden)"));
    assert_eq!(table["mail"]["smtp"]["port"].as_integer(), Some(587));
    assert_eq!(table["mail"]["smtp"]["username"].as_str(), Some("postman"));
    assert_eq!(table["data"]["dir"].as_str(), Some("/srv/somewhere"));
}

#[tokio::test]
async fn dev_mode_needs_nothing_and_says_where_everything_is() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("not/there/yet");
    let server = dev(&data).start().await;
    for place in ["/dev/mailbox", "/docs", "/errors"] {
        server.out.with(&format!("{}{place}", server.url)).await;
        assert_eq!(server.api.get(place).await.status, 200);
    }
    server.out.with(data.to_str().unwrap()).await;
    let configuration = server.api.get("/.well-known/openid-configuration").await;
    assert_eq!(configuration.str("/issuer"), server.url, "in dev mode the address is the public URL");
    let keys = server.api.get("/.well-known/jwks.json").await.text;
    server.stop().await;
    let again = dev(&data).start().await;
    assert_eq!(
        again.api.get("/.well-known/jwks.json").await.text,
        keys,
        "the key it made is the key it keeps"
    );
    again.stop().await;
}

#[tokio::test]
async fn what_the_server_keeps_is_for_its_own_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = dev(&data).start().await;
    for private in ["dev-master.key", "pearlgate.db", "pearlgate.db-wal"] {
        let mode = fs::metadata(data.join(private)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{private} can be read by others: {mode:o}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_log_that_is_no_terminal_has_no_colours() {
    let dir = tempfile::tempdir().unwrap();
    let server = dev(dir.path()).set("log.format", "text").set("log.level", "debug").start().await;
    let line = server.err.with("schema was brought up to date").await;
    assert!(!line.contains('\u{1b}'), "{line:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_data_directory_has_one_server_and_may_hold_other_things() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("photos")).unwrap();
    fs::write(dir.path().join("photos/cat.jpg"), "meow").unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let mut first = serve(dir.path()).start().await;
    for second in
        [serve(dir.path()), dev(dir.path()), pearlgate(&["migrate", "--data", dir.path().to_str().unwrap()])]
    {
        second.run().await.refused(&[
            dir.path().to_str().unwrap(),
            "another Pearlgate is running on it",
            "--data",
        ]);
    }
    assert_eq!(first.api.get("/health/ready").await.status, 200, "the first one goes on");
    first.kill();
    let next = serve(dir.path()).start().await;
    assert_eq!(next.api.get("/health/ready").await.status, 200, "right after kill -9");
    next.stop().await;
    assert_eq!(fs::read_to_string(dir.path().join("photos/cat.jpg")).unwrap(), "meow");
    assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "mine");
}

#[tokio::test]
async fn the_doctor_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let ill =
        pearlgate(&["doctor", "--data", dir.path().to_str().unwrap()]).set("mail.smtp.port", "1").run().await;
    assert_eq!(ill.status.code(), Some(1), "{ill:?}");
    let line = |what: &str| {
        ill.out
            .lines()
            .find(|line| line.contains(what))
            .unwrap_or_else(|| panic!("nothing of {what}: {ill:?}"))
    };
    assert!(line("settings:").starts_with("wrong") && line("settings:").contains("server.public_url"));
    assert!(line("data directory:").starts_with("ok"));
    assert!(line("database:").starts_with("ok"));
    assert!(line("mail server:").starts_with("wrong") && line("mail server:").contains("localhost:1"));

    let mail = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = mail.local_addr().unwrap().port().to_string();
    let doctor = |dir: &str| {
        let call = pearlgate(&["doctor", "--data", dir]).set("server.public_url", PUBLIC);
        call.set("secrets.master_key", &BASE64.encode(&[7; 32]))
            .set("mail.smtp.host", "127.0.0.1")
            .set("mail.smtp.port", &port)
    };
    serve(dir.path()).start().await.stop().await;
    let well = doctor(dir.path().to_str().unwrap()).run().await;
    assert!(well.went_well().lines().all(|line| line.starts_with("ok")), "{well:?}");
    assert_eq!(well.out.lines().count(), 4);

    let file = dir.path().join("a file");
    fs::write(&file, "").unwrap();
    let ill = doctor(file.to_str().unwrap()).run().await;
    assert_eq!(ill.status.code(), Some(1));
    assert!(ill.out.contains("wrong  data directory"), "{ill:?}");
}
