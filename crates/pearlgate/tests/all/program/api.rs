//! A client of a server that runs somewhere else.

use std::time::Duration;

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::child::{PATIENCE, until};
use crate::support::{Answer, PASSWORD, client};

#[derive(Clone)]
pub struct Api {
    pub url: String,
    client: reqwest::Client,
}

impl Api {
    pub fn new(url: &str) -> Self {
        let client = client().timeout(Duration::from_secs(20)).build().unwrap();
        Self { url: url.to_owned(), client }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// An answer, or nothing when the server went away before it was complete.
    pub async fn try_send(&self, request: RequestBuilder) -> Option<Answer> {
        let response = request.send().await.ok()?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.ok()?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        Some(Answer { status, headers, text, json })
    }

    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap_or_else(|| panic!("{} did not answer", self.url))
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path)).await
    }

    pub async fn get_as(&self, path: &str, access: &str) -> Answer {
        self.send(self.request(Method::GET, path).bearer_auth(access)).await
    }

    pub async fn try_post(&self, path: &str, body: &Value) -> Option<Answer> {
        self.try_send(self.request(Method::POST, path).json(body)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(self.request(Method::PUT, path).json(&body)).await
    }

    pub async fn register(&self, email: &str) -> Answer {
        self.post("/v1/auth/register", registration(email)).await
    }

    pub async fn login(&self, email: &str) -> Answer {
        self.post("/v1/auth/login", json!({ "email": email, "password": PASSWORD })).await
    }

    pub async fn refresh(&self, token: &str) -> Answer {
        self.post("/v1/auth/refresh", json!({ "refresh_token": token })).await
    }

    pub async fn verify(&self, verification: &str, code: &str) -> Answer {
        self.post("/v1/auth/verify-email", json!({ "verification_id": verification, "code": code })).await
    }

    /// The newest mail to somebody in dev mode's mailbox, waited for.
    pub async fn mailbox(&self, to: &str) -> Value {
        until(&format!("mail to {to} arrives"), PATIENCE, || async {
            let messages = self.get(&format!("/dev/v1/messages?to={to}")).await;
            messages.json["items"].as_array().unwrap().first().cloned()
        })
        .await
    }

    /// Registers, reads the mail in dev mode's mailbox, verifies: the token set.
    pub async fn dev_person(&self, email: &str) -> Answer {
        let verification = self.register(email).await.str("/verification_id");
        let mail = self.mailbox(email).await;
        let verified = self.verify(&verification, mail["code"].as_str().unwrap()).await;
        assert_eq!(verified.status, 200, "{}", verified.text);
        verified
    }
}

pub fn registration(email: &str) -> Value {
    json!({ "email": email, "password": PASSWORD, "display_name": "Ada" })
}
