//! Settings that cannot stand are refused with the key, the place and the remedy.

use std::fs;
use std::net::TcpListener;

use data_encoding::BASE64;

use super::child::{Call, PUBLIC, pearlgate, serve};

/// A fit production server whose settings are spoiled, one at a time.
struct Spoiled(tempfile::TempDir);

impl Spoiled {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn serve(&self) -> Call {
        serve(&self.0.path().join("data"))
    }

    /// `key` set to `value` through the environment is refused with these words and its place.
    async fn env(&self, key: &str, value: &str, words: &[&str]) {
        let place = format!("PEARLGATE__{}", key.to_uppercase().replace('.', "__"));
        let refused = self.serve().set(key, value).run().await;
        refused.refused(&[&[place.as_str()], words].concat());
        self.nothing_was_made();
    }

    /// A file with this text is refused with these words and its place.
    async fn file(&self, text: &str, line: usize, words: &[&str]) {
        let file = self.0.path().join("pearlgate.toml");
        fs::write(&file, text).unwrap();
        let place = format!("{}, line {line}", file.display());
        let refused = self.serve().arg("--config").arg(file.to_str().unwrap()).run().await;
        refused.refused(&[&[place.as_str()], words].concat());
        self.nothing_was_made();
    }

    fn nothing_was_made(&self) {
        assert!(!self.0.path().join("data").exists(), "refused settings leave nothing behind");
    }
}

#[tokio::test]
async fn production_asks_for_a_public_url_and_a_master_key() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().to_str().unwrap();
    let bare = pearlgate(&["serve", "--listen", "127.0.0.1:0", "--data", data]).run().await;
    bare.refused(&[
        "server.public_url",
        "is not set",
        "https://accounts.example.com",
        "--config",
        "PEARLGATE__SERVER__PUBLIC_URL",
        "pearlgate serve --dev",
    ]);
    let named = pearlgate(&["serve", "--listen", "127.0.0.1:0", "--data", data])
        .set("server.public_url", PUBLIC)
        .run()
        .await;
    named.refused(&[
        "secrets.master_key",
        "is not set",
        "pearlgate keys generate > master.key",
        "PEARLGATE__SECRETS__MASTER_KEY_FILE=master.key",
        "pearlgate serve --dev",
    ]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a refusal leaves nothing behind");
}

#[tokio::test]
async fn a_file_is_refused_with_the_line() {
    let spoiled = Spoiled::new();
    spoiled
        .file(
            "[server]\nlisen = \"127.0.0.1:80\"",
            2,
            &["`server.lisen`", "Did you mean `server.listen`?", "config show --default"],
        )
        .await;
    spoiled
        .file("# mine\n[mail.smtp]\n\nport = \"smtp\"", 4, &["`mail.smtp.port`", "a whole number, not text"])
        .await;
    spoiled.file("[docs]\nenabled = 1", 2, &["`docs.enabled`", "true or false, not a whole number"]).await;
    spoiled.file("[server]\nallowed_hosts = \"a\"", 2, &["`server.allowed_hosts`", "a list, not text"]).await;
    spoiled.file("[mail]\nsmtp = \"mail.example.com\"", 2, &["mail.smtp"]).await;
    spoiled.file("[server]\n\n\nlisten = 127.0.0.1", 4, &["not TOML"]).await;
    spoiled
        .file(
            "[tokens]\naccess = \"90d\"",
            2,
            &["`tokens.access`", "longer than tokens.refresh_idle", "shorter"],
        )
        .await;
    let nowhere = spoiled.serve().arg("--config").arg("/nowhere/pearlgate.toml").run().await;
    nowhere.refused(&["/nowhere/pearlgate.toml", "cannot be read", "--config"]);
}

#[tokio::test]
async fn a_variable_is_refused_with_its_name() {
    let spoiled = Spoiled::new();
    spoiled.env("server.lisen", "127.0.0.1:80", &["Did you mean `server.listen`?"]).await;
    spoiled
        .env("nothing.like.this", "1", &["there is no setting `nothing.like.this`", "config show --default"])
        .await;
    spoiled.env("mail.smtp.port", "smtp", &["`mail.smtp.port`", "whole number"]).await;
    spoiled.env("mail.smtp.port", "70000", &["mail.smtp.port"]).await;
    spoiled.env("docs.enabled", "perhaps", &["`docs.enabled`", "true or false"]).await;
    spoiled
        .env(
            "mail.smtp.password_file",
            "/nowhere/password",
            &["/nowhere/password", "cannot be read", "`mail.smtp.password`"],
        )
        .await;
    let twice = spoiled.serve().set("secrets.master_key_file", "/nowhere/master.key").run().await;
    twice.refused(&["`secrets.master_key`", "PEARLGATE__SECRETS__MASTER_KEY", "keep one of them"]);
    spoiled
        .env("secrets.master_key", "c2hvcnQ=", &["`secrets.master_key`", "32 bytes", "keys generate"])
        .await;
}

#[tokio::test]
async fn a_place_that_cannot_be_had_is_refused() {
    let spoiled = Spoiled::new();
    for bad in ["127.0.0.1:99999", "127.0.0.1", "nowhere:80", ":8080", "127.0.0.1:http"] {
        let call = pearlgate(&["serve", "--listen", bad])
            .set("server.public_url", PUBLIC)
            .set("secrets.master_key", &BASE64.encode(&[7; 32]));
        call.run().await.refused(&["--listen", "`server.listen`", bad, "such as 127.0.0.1:8080"]);
    }
    spoiled
        .env("server.internal_listen", "somewhere", &["`server.internal_listen`", "such as 127.0.0.1:8080"])
        .await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let taken = spoiled.serve().set("server.internal_listen", &address).run().await;
    taken.refused(&["server.internal_listen", &address, "another program", "Port 0"]);

    let file = spoiled.0.path().join("a file");
    fs::write(&file, "mine").unwrap();
    for data in [file.clone(), file.join("below")] {
        serve(&data).run().await.refused(&[data.to_str().unwrap(), "data directory", "--data"]);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[tokio::test]
async fn what_would_be_unsafe_is_refused() {
    let spoiled = Spoiled::new();
    spoiled
        .env("server.public_url", "http://accounts.example.com", &["`server.public_url`", "use https"])
        .await;
    for bad in [
        "accounts.example.com",
        "https://",
        "https://a.example/accounts",
        "https://a.example?x",
        "ftp://a.example",
        "https://ada@a.example",
    ] {
        spoiled
            .env("server.public_url", bad, &["`server.public_url`", "such as https://accounts.example.com"])
            .await;
    }
    for open in ["0.0.0.0:0", "[::]:0"] {
        let dev = pearlgate(&[
            "serve",
            "--dev",
            "--listen",
            open,
            "--data",
            spoiled.0.path().join("data").to_str().unwrap(),
        ]);
        dev.run().await.refused(&["`server.listen`", "--dev", "127.0.0.1"]);
    }
    let words = ["`mail.smtp.host`", "mail.smtp.tls", "\"starttls\" or \"implicit\""];
    spoiled.env("mail.smtp.host", "mail.example.com", &words).await;
    spoiled
        .serve()
        .set("mail.smtp.host", "mail.example.com")
        .set("mail.smtp.tls", "none")
        .run()
        .await
        .refused(&words);
    spoiled
        .env("mail.smtp.tls", "perhaps", &["`mail.smtp.tls`", "\"starttls\", \"implicit\" or \"none\""])
        .await;
}

#[tokio::test]
async fn what_contradicts_itself_is_refused() {
    let spoiled = Spoiled::new();
    spoiled
        .env(
            "mail.smtp.username",
            "postman",
            &["`mail.smtp.username`", "mail.smtp.password", "both or neither"],
        )
        .await;
    let nobody = spoiled.serve().set("mail.smtp.password", "hunter2").run().await;
    nobody.refused(&["mail.smtp.username", "both or neither"]);
    assert!(!nobody.err.contains("hunter2"));
    spoiled.env("tokens.access", "31d", &["`tokens.access`", "longer than tokens.refresh_idle"]).await;
    spoiled.env("tokens.refresh_idle", "91d", &["`tokens.refresh_idle`", "longer than tokens.session"]).await;
    spoiled.env("tokens.access", "ten minutes", &["`tokens.access`", "such as \"10m\""]).await;
    spoiled.env("tokens.access", "0s", &["`tokens.access`", "such as \"10m\""]).await;
    spoiled.env("log.level", "loud", &["`log.level`", "error, warn, info or debug"]).await;
    spoiled.env("log.format", "xml", &["`log.format`", "\"text\" or \"json\""]).await;
    spoiled.env("server.trusted_proxies", "10.0.0.0/99", &["`server.trusted_proxies`", "10.0.0.0/99"]).await;
    spoiled.env("server.max_connections", "0", &["`server.max_connections`", "at least 1"]).await;
    spoiled.env("hashing.memory_kib", "1", &["`hashing.memory_kib`", "from 8 KiB"]).await;
    spoiled.env("passwords.min_length", "4", &["`passwords.min_length`", "8 to 64"]).await;
    spoiled.env("service.name", "two\nlines", &["`service.name`", "one line"]).await;
}

#[tokio::test]
async fn what_is_wrong_inside_a_list_has_a_place_too() {
    Spoiled::new().file("[server]\nallowed_hosts = [1]", 2, &["server.allowed_hosts"]).await;
}

#[tokio::test]
async fn a_sender_and_an_authority_are_checked_like_any_setting() {
    let spoiled = Spoiled::new();
    spoiled.env("mail.from", "nobody at all", &["`mail.from`", "Name <address>"]).await;
    let tls = spoiled
        .serve()
        .set("mail.smtp.tls", "starttls")
        .set("mail.smtp.ca_file", "/nowhere/ca.pem")
        .run()
        .await;
    tls.refused(&["PEARLGATE__MAIL__SMTP__CA_FILE", "`mail.smtp.ca_file`", "/nowhere/ca.pem"]);
    spoiled.nothing_was_made();
}
