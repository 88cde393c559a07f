//! HTTP to other people's machines: no redirects, a cap on the answer, always through a [`Dependency`].

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http_body_util::BodyExt;

use super::addresses::{Guarded, Private};
use super::guard::{CallError, Dependency};
use crate::kernel::tls;

/// A client for one dependency. Cheap to clone.
#[derive(Debug, Clone)]
pub struct HttpClient {
    dependency: Dependency,
    asking: Asking,
}

/// What a conversation asks with, within the budget of the one call that it is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Asking {
    client: reqwest::Client,
    cap: usize,
    /// Where it may go; none when whoever operates the server has named the address.
    private: Option<Private>,
    /// Whether anything was asked in this conversation: one in which nothing was says nothing of the dependency.
    asked: Arc<AtomicBool>,
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
    pub fn new(dependency: Dependency, ca_file: Option<&Path>, cap: usize) -> Result<Self, String> {
        Ok(Self { dependency, asking: Asking::new(ca_file, cap, None)? })
    }

    /// A client for addresses that somebody else may name: https and public ones, and private hosts by name.
    ///
    /// # Errors
    /// As [`HttpClient::new`].
    pub fn guarded(dependency: Dependency, cap: usize, private: Private) -> Result<Self, String> {
        Ok(Self { dependency, asking: Asking::new(None, cap, Some(private))? })
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
        self.converse(|asking| async move {
            read(asking.get(url, headers).await?).ok_or_else(|| CallError::Away(NO_SENSE.into()))
        })
        .await
    }

    /// Several questions that are one call: together they have its budget, and all of them answered is success.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn converse<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        talk: impl FnOnce(Asking) -> F,
    ) -> Result<T, CallError> {
        let asking = Asking { asked: Arc::default(), ..self.asking.clone() };
        let asked = asking.asked.clone();
        self.dependency.call_if(talk(asking), || asked.load(Ordering::SeqCst)).await
    }

    /// How the dependency is.
    pub fn dependency(&self) -> &Dependency {
        &self.dependency
    }
}

const NO_SENSE: &str = "its answer makes no sense";

impl Asking {
    #[expect(clippy::disallowed_methods, reason = "the one place that makes an HTTP client")]
    fn new(ca_file: Option<&Path>, cap: usize, private: Option<Private>) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .user_agent(concat!("pearlgate/", env!("CARGO_PKG_VERSION")))
            .tls_backend_preconfigured(tls::client_config(ca_file)?);
        if let Some(private) = &private {
            builder = builder.dns_resolver(Arc::new(Guarded(private.clone())));
        }
        let client = builder.build().map_err(|e| e.to_string())?;
        Ok(Self { client, cap, private, asked: Arc::default() })
    }

    /// Whether this client would go to an address: for one that somebody's browser is sent to.
    ///
    /// # Errors
    /// [`CallError::Away`] with the reason why not.
    pub fn admits(&self, url: &reqwest::Url) -> Result<(), CallError> {
        let Some(private) = &self.private else { return Ok(()) };
        private.admits(url).map_err(CallError::Away)
    }

    /// GET.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn get(&self, url: &str, headers: &[(&'static str, &str)]) -> Result<Answer, CallError> {
        self.send(self.client.get(url), headers).await
    }

    /// POST of a form.
    ///
    /// # Errors
    /// As [`HttpClient::get`].
    pub async fn post_form(
        &self,
        url: &str,
        headers: &[(&'static str, &str)],
        form: &[(&str, &str)],
    ) -> Result<Answer, CallError> {
        let body = form.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
        let body = body.collect::<Vec<_>>().join("&");
        let request =
            self.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(body);
        self.send(request, headers).await
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        headers: &[(&'static str, &str)],
    ) -> Result<Answer, CallError> {
        let away = |e: reqwest::Error| CallError::Away(in_words(&e.without_url()));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let request = request.build().map_err(away)?;
        self.admits(request.url())?;
        self.asked.store(true, Ordering::SeqCst);
        let response = self.client.execute(request).await.map_err(away)?;
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

/// An error with what it came from: "error sending request" alone helps nobody.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words = format!("{words}: {cause}");
        next = cause.source();
    }
    words
}

fn escaped(text: &str) -> impl std::fmt::Display + '_ {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
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
