//! HTTP to other people's machines: no redirects, a cap on the answer, always through a [`Dependency`].

use std::path::Path;

use bytes::Bytes;
use http_body_util::BodyExt;

use super::guard::{CallError, Dependency};
use crate::kernel::tls;

/// A client for one dependency. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    dependency: Dependency,
    client: reqwest::Client,
    cap: usize,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The whole body, not larger than the cap.
    pub body: Bytes,
}

impl HttpClient {
    /// A client whose answers are at most `cap` bytes.
    ///
    /// # Errors
    /// In words, when the authorities in `ca_file` cannot be read.
    #[expect(clippy::disallowed_methods, reason = "the one place that makes an HTTP client")]
    pub fn new(dependency: Dependency, ca_file: Option<&Path>, cap: usize) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("pearlgate/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls::client_config(ca_file)?)
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Self { dependency, client, cap })
    }

    /// GET with some headers; `read` makes sense of the answer, within the call's budget, or says that there is none
    /// in it.
    ///
    /// # Errors
    /// [`CallError`]; 5xx, redirects and answers without sense count as away, 4xx as an answer.
    pub async fn get<T>(
        &self,
        url: &str,
        headers: &[(&'static str, &str)],
        read: impl Fn(Answer) -> Option<T>,
    ) -> Result<T, CallError> {
        let request =
            headers.iter().fold(self.client.get(url), |request, (name, value)| request.header(*name, *value));
        let call = async {
            read(self.send(request).await?).ok_or_else(|| CallError::Away("its answer makes no sense".into()))
        };
        self.dependency.call(call).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, CallError> {
        let away = |e: reqwest::Error| CallError::Away(e.without_url().to_string());
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        if status.is_server_error() || status.is_redirection() {
            return Err(CallError::Away(format!("it answered {}", status.as_u16())));
        }
        let body = http_body_util::Limited::new(reqwest::Body::from(response), self.cap)
            .collect()
            .await
            .map_err(|_| CallError::Away("its answer broke off or is larger than allowed".into()))?;
        Ok(Answer { status: status.as_u16(), body: body.to_bytes() })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::kernel::Clock;
    use crate::outbound::{Dependencies, Settings};

    /// A server that answers every connection with `answer` and then, perhaps, keeps it open.
    async fn server(answer: Vec<u8>, hang: bool) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _ = socket.read(&mut [0; 1024]).await;
                    let _ = socket.write_all(&answer).await;
                    if hang {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        url
    }

    fn client(cap: usize) -> HttpClient {
        let all = Dependencies::new(Clock::System);
        let timeout = Duration::from_millis(300);
        HttpClient::new(
            all.add(Settings { name: "t".into(), timeout, degraded: "", patience: None }),
            None,
            cap,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn what_is_strange_is_an_error_and_never_more_than_the_cap() {
        let ok = |body: &str| {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
        };
        let answer = client(5).get(&server(ok("pearl"), false).await, &[], Some).await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"pearl"[..]));
        let endless = b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\nxxxxxxxxxxxx".to_vec();
        let moved =
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".to_vec();
        let broken = b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec();
        for (strange, hang) in [
            (ok("pearls"), false),
            (endless, true),
            (moved, false),
            (broken, false),
            (b"garbage".to_vec(), false),
            (Vec::new(), true),
        ] {
            let words = String::from_utf8_lossy(&strange).into_owned();
            assert!(client(5).get(&server(strange, hang).await, &[], Some).await.is_err(), "{words}");
        }
        assert!(matches!(client(5).get("http://127.0.0.1:1/", &[], Some).await, Err(CallError::Away(_))));
    }
}
