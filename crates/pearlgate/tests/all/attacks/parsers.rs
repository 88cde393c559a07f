use reqwest::Method;
use serde_json::json;

use super::support::{OTHER, ask, post, post_text};
use crate::both;
use crate::support::PASSWORD;

const MALFORMED: &str = "400 malformed_request";

/// `{"a":{"a":…1…}}`, as deep as said.
fn nested(depth: usize, open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

both! {
    async fn a88_cve_2017_12635_json_duplicates_depth_numbers(app: &TestApp) {
        let with = |more: &str| format!(r#"{{"email":"ada@ex.test","password":"{OTHER}"{more}}}"#);
        let metadata = |inner: &str| with(&format!(r#","metadata":{inner}"#));
        let good = with("");
        let utf16 = |little: bool| -> Vec<u8> { good.encode_utf16().flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect() };
        let marked = |mark: &[u8], text: Vec<u8>| [mark.to_vec(), text].concat();

        // What two parsers could read in two ways is read in none.
        let mut bad: Vec<Vec<u8>> = [
            with(r#","email":"ada@ex.test""#), with(r#","email":"eve@ex.test""#), with(r#","\u0065mail":"eve@ex.test""#), with(r#","em\u0061il":"eve@ex.test""#),
            with(r#","password":"x""#), metadata(r#"{"role":"user","role":"admin"}"#), metadata(r#"{"role":"user","\u0072ole":"admin"}"#), metadata(r#"{"a":[{"b":{"c":1,"c":2}}]}"#), metadata(r#"{"":1,"":2}"#),
            with(r#","metadata":{},"metadata":{}"#), with(r#","role":"a","role":"b""#),
            metadata(&nested(33, r#"{"a":"#, "}")), metadata(&nested(10_000, r#"{"a":"#, "}")), metadata(&nested(30_000, "[", "]")), "[".repeat(60_000), r#"{"a":"#.repeat(10_000), nested(60, "[", "]"),
            metadata(r#"{"n":1e400}"#), metadata(r#"{"n":-1e400}"#), metadata(r#"{"n":NaN}"#), metadata(r#"{"n":Infinity}"#), metadata(r#"{"n":-Infinity}"#), metadata(r#"{"n":+1}"#),
            metadata(r#"{"n":01}"#), metadata(r#"{"n":1.}"#), metadata(r#"{"n":.5}"#), metadata(r#"{"n":0x10}"#), metadata(r#"{"n":1_000}"#), metadata(r#"{"n":--1}"#), metadata(r#"{"n":1e}"#), metadata(&format!(r#"{{"n":{}}}"#, "9".repeat(50_000))),
            metadata(r#"{"s":"\ud800"}"#), metadata(r#"{"s":"\udc00\ud800"}"#), metadata(r#"{"s":"\ud800\u0041"}"#), metadata(r#"{"\ud800":1}"#), metadata(r#"{"s":"\u12"}"#), metadata(r#"{"s":"\x41"}"#), metadata("{\"s\":\"a\nb\"}"), metadata("{\"s\":\"\0\"}"),
            format!("{good}{good}"), format!("{good} x"), format!("{good},"), format!("{good}\0"), format!("{good}]"), format!("{good}//"), format!("/**/{good}"), format!("{good}\n{good}"),
            with(","), with(r#","a""#), good.replace('"', "'"), good.replace("\"email\"", "email"), good[..good.len() - 1].to_owned(), good[1..].to_owned(),
            format!("[{good}]"), format!("\u{feff}{good}"), format!("while(1);{good}"), "null".into(), "true".into(), "0".into(), "\"x\"".into(), "[]".into(), String::new(), " ".into(), "{".into(),
        ].map(String::into_bytes).into();
        bad.extend([utf16(true), utf16(false), marked(&[0xff, 0xfe], utf16(true)), marked(&[0xfe, 0xff], utf16(false)), marked(&[0x1f, 0x8b, 8, 0], good.clone().into())]);
        bad.extend([&b"\xff"[..], b"\xc0\xae", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"].map(|wrong| {
            let (before, after) = good.split_at(good.find("ada").unwrap());
            [before.as_bytes(), wrong, after.as_bytes()].concat()
        }));
        for body in bad {
            let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
            assert_eq!(post_text(app, "/v1/auth/register", body).await.refusal(), MALFORMED, "{shown}");
        }
        for path in ["/v1/auth/login", "/v1/auth/verify-email", "/v1/auth/refresh", "/v1/auth/logout", "/v1/auth/resend-verification"] {
            for body in [r#"{"x":1,"\u0078":2}"#.to_owned(), "[".repeat(50_000), "\u{feff}{}".into(), "{} {}".into(), "[]".into()] {
                assert_eq!(post_text(app, path, body).await.refusal(), MALFORMED, "{path}");
            }
        }
        for kind in ["application/json; charset=utf-16", "application/json; charset=utf-7", "text/json", "application/x-json", "application/json, text/plain", "application/json;charset=utf-8;charset=utf-16", ""] {
            let request = app.request(Method::POST, "/v1/auth/register").header("content-type", kind).body(good.clone());
            assert_eq!(ask(app, request).await.refusal(), "415 unsupported_media_type", "{kind}");
        }
        let mut longest = 0;
        let keys = |many: usize| (0..many).map(|n| format!("\"{n:x}\":0")).collect::<Vec<_>>().join(",");
        let many = post_text(app, "/v1/auth/register", format!("{{{}}}", keys(100_000))).await;
        assert_eq!(many.refusal(), "413 payload_too_large");
        for (body, status) in [(metadata(&format!("{{{}}}", keys(7_000))), 422), (format!("{{{}}}", keys(7_000)), 422), (with(&format!(",\"{}\":1", "k".repeat(60_000))), 422)] {
            let refused = post_text(app, "/v1/auth/register", body).await;
            assert_eq!(refused.status, status, "{}", refused.text);
            longest = longest.max(refused.text.len());
        }
        for wrong in [r#"{"email":1}"#, r#"{"email":["ada@ex.test"],"password":"x"}"#, r#"{"email":null,"password":null}"#, r#"{"email":"ada@ex.test","password":123456789012345}"#,
            r#"{"email":"ada@ex.test","password":"x","locale":1e308}"#, r#"{"email":"ada@ex.test","password":true}"#] {
            assert_eq!(post_text(app, "/v1/auth/register", wrong).await.refusal(), "422 validation_failed", "{wrong}");
        }
        assert_eq!(app.count("SELECT COUNT(*) FROM users").await, 0);

        // The edge of what is fine is fine, and comes back as it went in.
        let numbers = r#"{"zero":-0,"most":18446744073709551615,"over":18446744073709551616,"least":-9223372036854775808,"float":-0.5e-3,"high":1e308,"nul":"\u0000","pair":"\ud83e\udd80"}"#;
        let registered = post_text(app, "/v1/auth/register", metadata(&nested(31, r#"{"a":"#, "}"))).await;
        assert_eq!(registered.status, 202, "{}", registered.text);
        app.mail("ada@ex.test", "verify_email", 1).await;
        let person = app.person("eve@ex.test").await;
        let patch = |body: String| app.send(app.request(Method::PATCH, "/v1/me").bearer_auth(&person.access).header("content-type", "application/json").body(body));
        let changed = patch(format!(r#"{{"metadata":{numbers}}}"#)).await;
        assert_eq!(changed.status, 200, "{}", changed.text);
        let read = app.get_as("/v1/me", &person.access).await;
        let kept = &read.json["metadata"];
        assert_eq!((&kept["most"], &kept["least"]), (&json!(u64::MAX), &json!(i64::MIN)));
        assert_eq!((&kept["nul"], &kept["pair"], &kept["high"]), (&json!("\0"), &json!("🦀"), &json!(1e308)));
        assert_eq!(kept["over"].as_f64(), Some(18_446_744_073_709_551_616.0));
        assert_eq!(patch(r#"{"metadata":{"a":1,"a":2}}"#.into()).await.refusal(), MALFORMED);
        assert_eq!(app.get_as("/v1/me", &person.access).await.json, read.json);

        // Numbers of queries.
        for limit in ["0", "-1", "-0", "201", "65535", "65536", "65537", "4294967297", "18446744073709551616", "1e2", "1.0", "0x10", "+", "", "%00", "١", "NaN", "1&limit=2", "1;limit=2", " 1", "1%20"] {
            let answer = ask(app, app.request(Method::GET, &format!("/v1/me/activity?limit={limit}")).bearer_auth(&person.access)).await;
            assert_eq!(answer.refusal(), "422 validation_failed", "limit={limit}");
        }
        let login = post(app, "/v1/auth/login", &json!({ "email": person.email, "password": PASSWORD })).await;
        assert_eq!(login.status, 200, "the stack is where it was");
        assert!(longest < 2_000, "an answer repeats the attack: {longest} bytes");
    }
}
