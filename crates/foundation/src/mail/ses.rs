//! Amazon SES: <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>, signed by hand.
//! It takes the whole mail, but gives it a Message-ID of its own; tracking is set for a configuration set.
//! What becomes of a mail it tells by a topic at SNS (`sns.rs`).

use data_encoding::{BASE64, HEXLOWER};
use serde_json::json;
use url::Url;

use super::Message;
use super::api::{Account, JSON, Request, Said, document, first, line, refusal, taken};
use crate::kernel::{Digest, MacKey, Secret, Timestamp, sha256};

pub(super) fn request(account: &Account, message: &Message, mime: &[u8], now: Timestamp) -> Request {
    let own = format!("https://email.{}.amazonaws.com", account.region);
    let url = account.base(&own) + "/v2/email/outbound-emails";
    let body = json!({
        "Content": { "Raw": { "Data": BASE64.encode(mime) } },
        "Destination": { "ToAddresses": [message.to] },
    });
    let body = body.to_string().into_bytes();
    let (host, path) = place(&url);
    let at = stamp(now);
    let signer =
        Signer { id: &account.id, key: &account.key, region: &account.region, service: "ses", at: &at };
    let headers: [(&str, &str); 3] = [("content-type", JSON), ("host", &host), ("x-amz-date", &at)];
    let authorization = signer.authorization("POST", &path, &headers, &body);
    Request {
        url,
        headers: vec![
            ("authorization", Secret::new(authorization)),
            ("content-type", Secret::new(JSON.into())),
            ("x-amz-date", Secret::new(at)),
        ],
        body,
    }
}

/// Host and path, as the client will say them.
fn place(url: &str) -> (String, String) {
    let Ok(url) = Url::parse(url) else { return <(String, String)>::default() };
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    (host, url.path().to_owned())
}

/// `20150830T123600Z`.
fn stamp(at: Timestamp) -> String {
    at.to_string().chars().take(19).filter(|c| !matches!(c, '-' | ':')).chain(['Z']).collect()
}

/// Signs a request that has no query, by AWS's Signature Version 4.
struct Signer<'a> {
    id: &'a str,
    key: &'a Secret,
    region: &'a str,
    service: &'a str,
    at: &'a str,
}

impl Signer<'_> {
    /// What the `authorization` header says; `headers` are in the order of their names, which are lower case.
    fn authorization(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let request = format!("{method}\n{path}\n\n{lines}\n{names}\n{}", hex(&sha256(body)));
        let day = self.at.get(..8).unwrap_or_default();
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let signed = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{}", self.at, hex(&sha256(request.as_bytes())));
        let secret = Secret::new(format!("AWS4{}", self.key.reveal()));
        let parts = [day, self.region, self.service, "aws4_request"];
        let key = parts.iter().fold(MacKey::new(secret.reveal().as_bytes()), |key, part| {
            MacKey::new(key.mac(part.as_bytes()).as_bytes())
        });
        let proof = hex(&key.mac(signed.as_bytes()));
        format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={proof}", self.id)
    }
}

fn hex(digest: &Digest) -> String {
    HEXLOWER.encode(digest.as_bytes())
}

pub(super) fn read(status: u16, body: &[u8]) -> Result<Said, String> {
    let answer = document(body);
    if status == 200 {
        return taken(&answer, "/MessageId");
    }
    // Which error it is stands in a header; the words are all that tells a quota, which comes with 400.
    let why = first(&answer, &["/message", "/Message"]);
    let passes = ["rate exceeded", "quota exceeded"].iter().any(|end| why.to_lowercase().contains(*end));
    if passes { Ok(Said::NotNow(line(why))) } else { refusal(status, why) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::api::Kind;
    use super::super::api::testing::{NOW, account, message, value};
    use super::*;

    #[test]
    fn a_request_is_signed_as_aws_publishes() {
        let key = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into());
        let signer = Signer {
            id: "AKIDEXAMPLE",
            key: &key,
            region: "us-east-1",
            service: "service",
            at: "20150830T123600Z",
        };
        let start = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                     SignedHeaders=";
        // post-vanilla
        let headers = [("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")];
        let proof = "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b";
        assert_eq!(
            signer.authorization("POST", "/", &headers, b""),
            format!("{start}host;x-amz-date, Signature={proof}")
        );
        // post-x-www-form-urlencoded
        let form = ("content-type", "application/x-www-form-urlencoded");
        let proof = "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a";
        assert_eq!(
            signer.authorization("POST", "/", &[form, headers[0], headers[1]], b"Param1=value1"),
            format!("{start}content-type;host;x-amz-date, Signature={proof}")
        );
    }

    #[test]
    fn a_mail_is_handed_over_whole() {
        let account = account(Kind::Ses, "");
        let request = account.request(&message(), b"From: x\r\n\r\nmime", NOW);
        assert_eq!(request.url, "https://email.eu-central-1.amazonaws.com/v2/email/outbound-emails");
        let expected = json!({
            "Content": { "Raw": { "Data": "RnJvbTogeA0KDQptaW1l" } },
            "Destination": { "ToAddresses": ["ada+a@example.org"] },
        });
        assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), expected);
        assert_eq!(value(&request, "x-amz-date"), "20231114T221320Z");
        assert_eq!(value(&request, "content-type"), "application/json");
        let signer = Signer {
            id: "AKIDEXAMPLE",
            key: &account.key,
            region: "eu-central-1",
            service: "ses",
            at: "20231114T221320Z",
        };
        let headers = [
            ("content-type", "application/json"),
            ("host", "email.eu-central-1.amazonaws.com"),
            ("x-amz-date", "20231114T221320Z"),
        ];
        let path = "/v2/email/outbound-emails";
        assert_eq!(
            value(&request, "authorization"),
            signer.authorization("POST", path, &headers, &request.body)
        );

        let mut behind = account.clone();
        behind.url = "http://127.0.0.1:1234/aws".into();
        let request = behind.request(&message(), b"", NOW);
        let headers = [headers[0], ("host", "127.0.0.1:1234"), headers[2]];
        let path = "/aws/v2/email/outbound-emails";
        assert_eq!(
            value(&request, "authorization"),
            signer.authorization("POST", path, &headers, &request.body)
        );
    }

    #[test]
    fn answers() {
        let read = |status, body: &str| account(Kind::Ses, "").read(status, body.as_bytes()).unwrap();
        let taken = r#"{"MessageId":"0107018b-7c191be45-000000"}"#;
        assert_eq!(read(200, taken), Said::Taken("0107018b-7c191be45-000000".into()));
        for (status, words) in [
            (400, "Email address is not verified. The following identities failed the check: x"),
            (400, "Sending paused for this account."),
            (403, "The security token included in the request is invalid."),
            (403, "Signature expired: 20231114T221320Z is now earlier than 20231114T222320Z"),
            (404, "Configuration set <x> does not exist."),
        ] {
            let said = read(status, &json!({ "message": words }).to_string());
            assert!(matches!(said, Said::NotHere(_)), "{words}: {said:?}");
        }
        for (status, words) in [
            (400, "Daily message quota exceeded."),
            (400, "Maximum sending rate exceeded."),
            (429, "Too many requests"),
        ] {
            let said = read(status, &json!({ "Message": words }).to_string());
            assert!(matches!(said, Said::NotNow(_)), "{words}: {said:?}");
        }
    }
}
