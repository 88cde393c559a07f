//! The real SMTP server of the tests (`xtask/parts/smtp_server.py`) and the messages that it received.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use data_encoding::BASE64;
use serde::Deserialize;

use super::child::{Call, Guarded, PATIENCE, until};
use crate::support::environment;

pub struct SmtpServer {
    pub port: u16,
    messages: Arc<Mutex<Vec<Arc<Message>>>>,
    child: Guarded,
}

/// A message as the server took it.
#[derive(Debug, Deserialize)]
pub struct Message {
    pub to: Vec<String>,
    pub data: String,
    pub tls: bool,
    pub auth: String,
}

impl SmtpServer {
    /// On a free port.
    pub async fn start(options: &[&str]) -> Self {
        Self::on(0, options).await
    }

    pub async fn on(port: u16, options: &[&str]) -> Self {
        let mut command = Command::new(environment("PEARLGATE_TEST_PYTHON"));
        command.arg(environment("PEARLGATE_TEST_SMTP")).arg("--port").arg(port.to_string()).args(options);
        // It ends when its standard input closes: it does not outlive us either way.
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let child = Guarded(child);
        let first = lines.next().expect("a mail server that listens");
        let messages = Arc::<Mutex<Vec<Arc<Message>>>>::default();
        let kept = messages.clone();
        std::thread::spawn(move || {
            for line in lines {
                kept.lock().unwrap().push(Arc::new(serde_json::from_str(&line).unwrap()));
            }
        });
        Self { port: first.strip_prefix("listening ").unwrap().parse().unwrap(), messages, child }
    }

    /// With TLS of this kind, under the certificate that the tests' own authority vouches for.
    pub async fn with_tls(kind: &str, more: &[&str]) -> Self {
        let (cert, key) = (environment("PEARLGATE_TEST_CERT"), environment("PEARLGATE_TEST_KEY"));
        Self::start(&[&["--tls", kind, "--cert", &cert, "--key", &key], more].concat()).await
    }

    /// A port on which nobody listens, until this server comes back to it.
    pub async fn away() -> u16 {
        let mut passing = Self::start(&[]).await;
        passing.stop();
        passing.port
    }

    pub fn stop(&mut self) {
        self.child.kill();
    }

    /// Tells a server where its mail goes.
    pub fn tell(port: u16, call: Call) -> Call {
        call.set("mail.smtp.host", "localhost").set("mail.smtp.port", &port.to_string())
    }

    pub fn messages(&self) -> Vec<Arc<Message>> {
        self.messages.lock().unwrap().clone()
    }

    pub fn messages_to(&self, address: &str) -> Vec<Arc<Message>> {
        self.messages().into_iter().filter(|message| message.to.iter().any(|to| to == address)).collect()
    }

    /// The `count`th message to somebody, waited for.
    pub async fn message_to(&self, address: &str, count: usize) -> Arc<Message> {
        let what = format!("message {count} to {address} arrives");
        until(&what, PATIENCE, || async { self.messages_to(address).into_iter().nth(count - 1) }).await
    }
}

impl Message {
    /// A header of the message.
    pub fn header(&self, name: &str) -> String {
        header(self.data.split_once("\r\n\r\n").expect("a message has a body").0, name)
    }

    /// The kinds of the parts of a `multipart/alternative`, in order, and their texts.
    pub fn parts(&self) -> Vec<(String, String)> {
        let kind = self.header("Content-Type");
        assert!(kind.starts_with("multipart/alternative"), "{kind}");
        let boundary = kind.split_once("boundary=\"").unwrap().1.split('"').next().unwrap();
        let body = self.data.split_once("\r\n\r\n").unwrap().1;
        let pieces: Vec<&str> = body.split(&format!("--{boundary}")).collect();
        assert!(pieces.last().unwrap().starts_with("--"), "the last boundary closes");
        pieces[1..pieces.len() - 1].iter().map(|piece| part(piece.trim_start_matches("\r\n"))).collect()
    }

    pub fn text(&self) -> String {
        self.parts()[0].1.clone()
    }

    /// The link in the text.
    pub fn link(&self) -> String {
        let text = self.text();
        text.split_whitespace().find(|word| word.starts_with("http")).expect("a mail with a link").to_owned()
    }

    /// The six digits in the text.
    pub fn code(&self) -> String {
        let text = self.text();
        let is_code = |word: &&str| word.len() == 6 && word.bytes().all(|b| b.is_ascii_digit());
        text.split_whitespace().find(is_code).expect("a mail with a code").to_owned()
    }
}

/// A header's value, unfolded (RFC 5322 §2.2.3).
fn header(head: &str, name: &str) -> String {
    let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let values: Vec<&str> = unfolded
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value.trim()))
        .collect();
    assert_eq!(values.len(), 1, "{name} is there once in {head}");
    values[0].to_owned()
}

fn part(piece: &str) -> (String, String) {
    let (head, body) = piece.split_once("\r\n\r\n").unwrap();
    let encoding = header(head, "Content-Transfer-Encoding");
    let text = match encoding.to_lowercase().as_str() {
        "7bit" | "8bit" => body.to_owned(),
        "quoted-printable" => quoted_printable(body),
        "base64" => String::from_utf8(BASE64.decode(body.replace("\r\n", "").as_bytes()).unwrap()).unwrap(),
        other => panic!("an encoding nobody told us about: {other}"),
    };
    (header(head, "Content-Type"), text)
}

fn quoted_printable(body: &str) -> String {
    let joined = body.replace("=\r\n", "");
    let mut pieces = joined.split('=');
    let mut bytes = pieces.next().unwrap().as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(&piece[..2], 16).unwrap());
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}
